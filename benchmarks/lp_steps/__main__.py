"""Which step of Davis-Yin needs the fewest iterations, on programs that the rule was and was not chosen on.

    python -m benchmarks.lp_steps            # writes results/lp_steps.json, some minutes on one core

For every program and `gamma` in 1, 0.1, 0.01 the iterations until every entry of `x` is within 1e-4 of the reference, and
until `|T(z) - z| <= 1e-4`, are counted for 25 steps on a logarithmic scale. A rule that gives a step is judged by its
iterations over those of the best of these steps, in the geometric mean. Constants are fitted on one half of the programs,
`TUNING`, and the rules compared on the other, `HELD_OUT`; the halves were written down before rules were
compared, though after the best steps had been seen; those of `Balance` were chosen on both. The
iteration here is its own, in plain matrices, so that a change of the library's projections or loops does not move the study.
"""

from benchmarks.lp_layers.pin import pin

CORE = pin()  # before anything loads NumPy or PyTorch


def main() -> None:
    """Run the command line."""
    from benchmarks.lp_steps.study import main as run

    run(__doc__ or "")


if __name__ == "__main__":
    main()
