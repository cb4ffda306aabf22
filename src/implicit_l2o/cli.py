"""The `il2o` command: which words it knows, and what each of them starts.

Longer than most files here: one word after the other, each a list of its options and a call.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from implicit_l2o import __version__

_INTERRUPTED = 130  # what a shell reports of a process that ended by Ctrl-C
_OWN = (
    "--seeds",
    "--folder",
    "--ckpt_path",
    "--overwrite",
    "--quiet",
    "--print_config",
    "--help",
    "--",
)  # of `il2o run`
_SERVING = ("fastapi", "uvicorn", "safetensors", "pydantic", "starlette")  # of the extra `serve`
_LIGHTNING = {
    "fit": "train only; `run` does everything",
    "validate": "the metrics on the validation data",
    "test": "the metrics on the test data",
    "predict": "answers and certificates on the test data, in predictions.npz",
}


class _Parser(argparse.ArgumentParser):
    """Complains in two lines, without the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"{self.prog}: {message}.\nTry '{self.prog} --help'.\n")


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    top = _Parser(prog="il2o", description="Learning to optimize with implicit networks.", allow_abbrev=False)
    top.add_argument("--version", action="version", version=f"il2o {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    _add_run(commands)
    _add_report(commands)
    _add_list(commands)
    _add_certify(commands)
    _add_play(commands)
    _add_export(commands)
    _add_serve(commands)
    _add_demo(commands)
    _add_doctor(commands)
    for name, text in _LIGHTNING.items():
        command = commands.add_parser(name, help=text, add_help=False, allow_abbrev=False)
        command.set_defaults(parser=command, call=_lightning)
    return top


def _add_run(commands: "argparse._SubParsersAction[_Parser]") -> None:
    run = commands.add_parser(
        "run",
        help="train, test, certify, compare and report one experiment",
        description="Train by CONFIG, test with the best validation checkpoint, calibrate the certificates, compare with "
        "the baselines, and write the run folder with its report. Any key of the configuration can be set after it, "
        "as --trainer.max_epochs 5; --print_config shows them all.",
        usage="il2o run CONFIG [CONFIG ...] [--seeds 0,1,2] [--folder DIR] [--ckpt_path last] [--overwrite] [--quiet] "
        "[--KEY VALUE ...]",
        allow_abbrev=False,
    )
    run.add_argument("config", nargs="+", metavar="CONFIG", help="YAML file, or the name of one that `il2o list` shows")
    run.add_argument("--seeds", type=_seeds, metavar="0,1,2", help="one run a seed, and a summary over them")
    run.add_argument("--folder", type=Path, metavar="DIR", help="for the run's files (default: runs/NAME)")
    run.add_argument("--ckpt_path", metavar="last", help="go on with an interrupted run: last, best or a file")
    run.add_argument("--overwrite", action="store_true", help="replace an earlier run in the folder")
    run.add_argument("--quiet", action="store_true", help="no progress bars")
    run.set_defaults(parser=run, call=_run)


def _add_report(commands: "argparse._SubParsersAction[_Parser]") -> None:
    report = commands.add_parser("report", help="build the report of a run again", allow_abbrev=False)
    report.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    report.set_defaults(parser=report, call=_report)


def _add_list(commands: "argparse._SubParsersAction[_Parser]") -> None:
    listing = commands.add_parser("list", help="applications and experiments, one line each", allow_abbrev=False)
    listing.set_defaults(parser=listing, call=_list)


def _add_certify(commands: "argparse._SubParsersAction[_Parser]") -> None:
    certify = commands.add_parser(
        "certify",
        help="run a trained model on new data, with a certificate for each sample",
        description="Writes predictions.npz and certificates.json. The exit status is 0 only when no sample fails, "
        "1 when one does.",
        allow_abbrev=False,
    )
    certify.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    certify.add_argument("--data", type=Path, required=True, metavar="FILE", help=".npz, .parquet, .h5 or .csv")
    certify.add_argument("--array", metavar="NAME", help="which array of the file holds the inputs")
    certify.add_argument("--out", type=Path, metavar="DIR", help="default: RUN/certified/NAME-OF-FILE")
    certify.add_argument("--batch_size", type=int, default=500, metavar="N", help="samples at once (default: 500)")
    certify.add_argument("--quiet", action="store_true", help="no progress bar")
    certify.set_defaults(parser=certify, call=_certify)


def _add_play(commands: "argparse._SubParsersAction[_Parser]") -> None:
    play = commands.add_parser(
        "play",
        help="play the solves of a trained model, iteration by iteration",
        description="Writes one HTML page: the iterates of some test samples, residual, constraints and certificates by "
        "iteration, and the gradients of two backward modes.",
        allow_abbrev=False,
    )
    play.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    play.add_argument("--samples", type=_samples, metavar="0,3,7", help="test samples (default: the report's examples)")
    play.add_argument("--frames", type=int, default=60, metavar="N", help="iterates of each solve (default: 60)")
    play.add_argument(
        "--backward",
        nargs=2,
        metavar="MODE",
        help="two class paths to compare (default: implicit_l2o.JFB implicit_l2o.Implicit)",
    )
    play.add_argument("--out", type=Path, metavar="FILE", help="default: RUN/player.html")
    play.set_defaults(parser=play, call=_play)


def _add_export(commands: "argparse._SubParsersAction[_Parser]") -> None:
    export = commands.add_parser(
        "export",
        help="save a run's trained model as one folder that needs no training packages",
        description="Writes weights, description and an example, whole or not at all; "
        "implicit_l2o.serving.load_layer and `il2o serve` read it.",
        allow_abbrev=False,
    )
    export.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; absent or empty")
    export.add_argument("--torch-export", action="store_true", help="also save a program of torch.export")
    export.add_argument("--steps", type=int, metavar="N", help="iterations of that program")
    export.add_argument("--allow", action="append", default=[], metavar="PACKAGE", help="whose classes the run names")
    export.set_defaults(parser=export, call=_export)


def _add_serve(commands: "argparse._SubParsersAction[_Parser]") -> None:
    serve = commands.add_parser(
        "serve",
        help="answer over HTTP by a trained model, with certificates",
        description="Serves what `il2o export` wrote, or a run, on this machine alone unless --host says otherwise.",
        allow_abbrev=False,
    )
    serve.add_argument("layer", type=Path, metavar="RUN_OR_EXPORTED", help="folder of an exported layer or of a run")
    serve.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="default: 127.0.0.1, the loopback")
    serve.add_argument("--port", type=int, default=8000, metavar="N", help="0 takes a free one (default: 8000)")
    serve.add_argument("--max-batch", type=int, default=64, metavar="N", help="samples of a request (default: 64)")
    serve.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="of a solve (default: 30)")
    serve.add_argument("--workers", type=int, default=1, metavar="N", help="solves at once (default: 1)")
    serve.add_argument("--queue", type=int, default=64, metavar="N", help="requests inside at once (default: 64)")
    serve.add_argument("--allow", action="append", default=[], metavar="PACKAGE", help="whose classes the folder names")
    serve.set_defaults(parser=serve, call=_serve)


def _add_demo(commands: "argparse._SubParsersAction[_Parser]") -> None:
    demo = commands.add_parser(
        "demo",
        help="train the two first models and draw what they do",
        description="Two runs, each with its report: learn shortest paths from solutions, and read handwritten digits; "
        "about a minute on two cores. Prints a table and writes OUT/summary.json.",
        allow_abbrev=False,
    )
    demo.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results, made if absent")
    demo.add_argument("--seed", type=_seed, default=0, metavar="N", help="of data, weights and batches (default: 0)")
    demo.add_argument("--quiet", action="store_true", help="no progress bars")
    demo.set_defaults(parser=demo, call=_demo)


def _add_doctor(commands: "argparse._SubParsersAction[_Parser]") -> None:
    doctor = commands.add_parser(
        "doctor",
        help="look at this installation and solve a small problem",
        description="Versions, threads, devices, optional parts, a small solve, and the known traps. The exit status is 1 "
        "if a problem was found.",
        allow_abbrev=False,
    )
    doctor.add_argument("--json", action="store_true", help="everything as JSON")
    doctor.set_defaults(parser=doctor, call=_doctor)


def _seed(text: str) -> int:
    """A seed from the command line: a whole number that all random generators take."""
    try:
        seed = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a whole number is needed; got {text!r}") from None
    if not 0 <= seed < 2**31:
        raise argparse.ArgumentTypeError(f"0 <= N < 2**31 is needed; got {seed}")
    return seed


def _seeds(text: str) -> list[int]:
    """Seeds separated by commas, each once."""
    seeds = [_seed(part.strip()) for part in text.split(",")]
    if len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"each seed once is needed; got {text}")
    return seeds


def _samples(text: str) -> list[int]:
    """Numbers of samples separated by commas."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"whole numbers separated by commas are needed; got {text!r}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    Args:
        arguments: without the program's name; None takes those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    options, unknown = parser().parse_known_args(_joined(words) if words[:1] == ["run"] else words)
    takes_more = options.call in (_run, _lightning)
    if unknown and not takes_more:  # said by the command's own parser: argparse would leave it to the top one
        usage = " ".join(options.parser.format_usage().split())
        options.parser.error(f"unknown: {' '.join(unknown)}; {usage}")
    options.more = unknown
    _see_working_directory()
    try:
        return _guarded(options)
    except KeyboardInterrupt as interrupt:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # of several processes one speaks
            print(f"\nil2o: {str(interrupt) or 'interrupted.'}", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of the output, such as `head`, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _joined(words: Sequence[str]) -> list[str]:
    """Each key of the configuration in one word with its value, which could else be taken for a CONFIG."""
    found: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        is_key = word.startswith("--") and "=" not in word and word not in _OWN
        if is_key and rest and not rest[0].startswith("--"):
            word = f"{word}={rest.pop(0)}"
        found.append(word)
    return found


def _see_working_directory() -> None:
    """A configuration may name classes of a file beside it: `class_path: my_file.MyTask`."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)


def _guarded(options: argparse.Namespace) -> int:
    """Say in one line what the user can mend: status 2 for what was asked, 1 for what went wrong on the way."""
    command = f"il2o {options.command}"
    try:
        return options.call(options)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("implicit_l2o"):
            raise
        extra = "serve" if options.call is _serve and error.name in _SERVING else "train"
        print(f"{command} needs {error.name}: pip install 'implicit_l2o[{extra}]'.", file=sys.stderr)
        return 1
    except BrokenPipeError:
        raise
    except (OSError, FloatingPointError, ValueError) as error:
        if isinstance(error, ValueError) and not _is_usage(error):
            raise
        print(f"{command}: {_one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1


def _is_usage(error: ValueError) -> bool:
    from implicit_l2o.serving.errors import LayerError, LimitError

    if isinstance(error, LayerError | LimitError):
        return True
    from implicit_l2o.experiment.errors import ConfigurationError

    return isinstance(error, ConfigurationError)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"cannot use {error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
    return " ".join(str(error).split())


# The modules below take seconds to import, for which `il2o --help` does not wait.


def _run(options: argparse.Namespace) -> int:
    from implicit_l2o.experiment import Options, find_experiment, run, table

    asked = Options(
        config=[find_experiment(name) for name in options.config],
        overrides=options.more,
        seeds=options.seeds,
        folder=options.folder,
        checkpoint=options.ckpt_path,
        overwrite=options.overwrite,
        progress=not options.quiet,
    )
    folder, results = run(asked)
    if results and results[0]:
        print(table(results))
        print(f"\nreport: {folder.report}")
    return 0


def _report(options: argparse.Namespace) -> int:
    from implicit_l2o.experiment import rebuild

    print(rebuild(options.run))
    return 0


def _list(options: argparse.Namespace) -> int:
    from implicit_l2o.experiment.catalogue import listing

    print(listing())
    return 0


def _certify(options: argparse.Namespace) -> int:
    from implicit_l2o.experiment import certify

    failing = certify(
        options.run,
        options.data,
        array=options.array,
        out=options.out,
        batch_size=options.batch_size,
        progress=not options.quiet,
    )
    return 1 if failing else 0


def _play(options: argparse.Namespace) -> int:
    from implicit_l2o.experiment import play, read_mode

    modes = None if options.backward is None else [read_mode(text) for text in options.backward]
    print(play(options.run, samples=options.samples, frames=options.frames, backward=modes, out=options.out))
    return 0


def _export(options: argparse.Namespace) -> int:
    from implicit_l2o.experiment import export

    if (options.steps is None) == options.torch_export:
        options.parser.error("--torch-export and --steps N go together")
    print(export(options.run, options.out, steps=options.steps, allow=tuple(options.allow)))
    return 0


def _serve(options: argparse.Namespace) -> int:
    from implicit_l2o.serving import is_layer, load_layer
    from implicit_l2o.serving.http.limits import Limits
    from implicit_l2o.serving.http.server import run_server

    limits = Limits(options.max_batch, options.timeout, options.workers, options.queue)
    if is_layer(options.layer):
        layer = load_layer(options.layer, allow=options.allow)
    else:
        from implicit_l2o.experiment import layer_of

        layer = layer_of(options.layer, allow=tuple(options.allow))
    run_server(layer, limits, host=options.host, port=options.port)
    return 0


def _lightning(options: argparse.Namespace) -> int:
    from implicit_l2o.experiment import ExperimentCLI

    ExperimentCLI([options.command, *options.more], run=True)
    return 0


def _demo(options: argparse.Namespace) -> int:
    from implicit_l2o.applications.demo import demo, table

    summary = demo(options.out, options.seed, progress=not options.quiet)
    print(table(summary))
    print("\nWritten:", *(f"  {path}" for path in (options.out / "summary.json", *summary["reports"])), sep="\n")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from implicit_l2o import doctor

    return doctor.main(as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
