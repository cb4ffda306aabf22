"""The `il2o` command."""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

_INTERRUPTED = 130  # what a shell reports of a process that ended by Ctrl-C


class _Parser(argparse.ArgumentParser):
    """Complains in two lines, without the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"{self.prog}: {message}.\nTry '{self.prog} --help'.\n")


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    top = _Parser(prog="il2o", description="Learning to optimize with implicit networks.", allow_abbrev=False)
    top.add_argument("--version", action="version", version=f"il2o {version('implicit_l2o')}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    demo = commands.add_parser(
        "demo",
        help="train the two first models and draw what they do",
        description="Learn shortest paths from solutions, and read handwritten digits; about a minute on two cores. "
        "Prints a table and writes OUT/summary.json and figures.",
        allow_abbrev=False,
    )
    demo.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results, made if absent")
    demo.add_argument("--seed", type=_seed, default=0, metavar="N", help="of data, weights and batches (default: 0)")
    demo.add_argument("--quiet", action="store_true", help="no progress bars")
    demo.set_defaults(parser=demo)
    return top


def _seed(text: str) -> int:
    """A seed from the command line: a whole number that all random generators take."""
    try:
        seed = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a whole number is needed; got {text!r}") from None
    if not 0 <= seed < 2**31:
        raise argparse.ArgumentTypeError(f"0 <= N < 2**31 is needed; got {seed}")
    return seed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    Args:
        arguments: without the program's name; None takes those of the process.
    """
    options, unknown = parser().parse_known_args(arguments)
    if unknown:  # said by the command's own parser: argparse would leave it to the top one, which has other options
        usage = " ".join(options.parser.format_usage().split())
        options.parser.error(f"unknown: {' '.join(unknown)}; {usage}")
    try:
        return _demo(options)
    except KeyboardInterrupt:
        print("\nil2o: interrupted.", file=sys.stderr)
        return _INTERRUPTED


def _demo(options: argparse.Namespace) -> int:
    # Here and not above: Lightning and matplotlib take seconds, for which `il2o --help` does not wait.
    from implicit_l2o.applications.demo import demo, table

    try:
        summary = demo(options.out, options.seed, progress=not options.quiet)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("implicit_l2o"):
            raise
        print(f"il2o demo needs {error.name}: pip install 'implicit_l2o[train]'.", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"il2o demo: cannot write to {error.filename or options.out}: {error.strerror or error}.", file=sys.stderr
        )
        return 1
    print(table(summary))
    print("\nWritten:", *(f"  {path}" for path in (options.out / "summary.json", *summary["figures"])), sep="\n")
    return 0
