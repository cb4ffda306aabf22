"""Time parallel-beam projectors and their adjoints on the same lines.

    python -m benchmarks.projectors                      # writes results/projectors.json
    python -m benchmarks.projectors --rows ours --out some.json

A batch of 16 images, one thread on one core, float32. A time is the least processor time over repeats, so that a neighbour
on the machine disturbs it least. Peers that are not installed are named and left out; rows that were measured before stay.
"""

from benchmarks.lp_layers.pin import pin

CORE = pin()  # before anything loads NumPy or PyTorch


def main() -> None:
    """Run the command line."""
    from benchmarks.projectors.run import main as run

    run(CORE)


if __name__ == "__main__":
    main()
