"""Time differentiable linear programs at equal, checked accuracy.

    python -m benchmarks.lp_layers                     # writes results/lp_layers.json
    python -m benchmarks.lp_layers --problems "grid 5" "knapsack 50" --peers JFB Moreau --quick --out some.json

Forward and backward of a batch of 32 in one thread on one core. Every peer runs at the loosest tolerance of its ladder
with which every entry of its answers is within 1e-5 of a reference that is itself right to 1e-10. What is measured is
written after every row; rows that are in the file already and not asked for stay.
"""

from benchmarks.lp_layers.pin import pin

CORE = pin()  # before anything loads NumPy or PyTorch


def main() -> None:
    """Run the command line."""
    from benchmarks.lp_layers.run import main as run

    run(CORE)


if __name__ == "__main__":
    main()
