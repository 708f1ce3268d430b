"""The command line: `tinyqnn quantize` is the main job, the others look at its parts.

Each command is one function of the parsed arguments; what it runs is imported there, so that `tinyqnn --help` is quick.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NoReturn

BENCHES = ("training", "first", "quantizing", "inference", "gemm", "gemv", "layer")

WELCOME = """\
tinyqnn: quantized neural networks from scratch, to read, to run and to check against

  tinyqnn quantize             train a network on glyphs drawn on the spot, search for schemes and widths of 2 bits on
                               average, train on, pack it, compare (a minute)
  tinyqnn quantize mnist       the same on a real data set
  tinyqnn reproduce [NAME]     run a figure or table of a paper and put its claims to the test
  tinyqnn claims               what the papers claim, and what held here
  tinyqnn data [NAME]          which data sets there are; fetch one
  tinyqnn bench training       how long a training step takes, here and in PyTorch
  tinyqnn bench gemm           how fast products of codes are, next to float32 (also gemv, layer)
  tinyqnn inspect FILE         what is in a packed model; `tinyqnn run FILE --data mnist` lets it answer
  tinyqnn check my.module:Q    is your quantizer what it claims to be? law by law
  tinyqnn COMMAND --help       all that a command can do

In Python:  import tinyqnn as tq;  help(tq)          To read:  tutorials/
"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors say what was probably meant."""

    def error(self, message: str) -> NoReturn:
        words = [action.dest for action in self._actions if action.choices is None]
        known = [option for action in self._actions for option in action.option_strings] + words
        for action in self._actions:
            known += [str(choice) for choice in action.choices or ()]
        wrong = [word.strip("'\",:()") for word in message.split()]
        close = [match for word in wrong for match in difflib.get_close_matches(word, known, 1, 0.7) if match != word]
        hint = f"; did you mean {close[0]}?" if close else ""
        self.exit(2, f"{self.prog}: {message}{hint}\nsee {self.prog} --help\n")


class CommandParser(Parser):
    """The parser of one command: words and options in any order, and what an unknown option was meant to be."""

    intermixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.intermixing:  # argparse collects options first and words next, by calling this twice
            return super().parse_known_args(args, namespace)
        self.intermixing = True
        try:
            parsed, unknown = self.parse_known_intermixed_args(args, namespace)
        finally:
            self.intermixing = False
        if unknown:
            self.error(f"unknown {' '.join(unknown)}")
        return parsed, unknown


def parser() -> argparse.ArgumentParser:
    """All commands with all their options."""
    top = Parser(prog="tinyqnn", description=WELCOME, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--version", action="store_true", help="print the version")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=CommandParser)

    def command(name: str, summary: str, examples: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog="examples:\n" + examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    quantize = command(
        "quantize",
        "Train a float network, find out how to quantize it, train on, pack it, and compare.",
        "  tinyqnn quantize\n"
        "  tinyqnn quantize mnist --target-bits 2.5\n"
        "  tinyqnn quantize mnist --method fixed --weights C-3 --activations C-3\n"
        "  tinyqnn quantize mnist --method dfq --theta 0.1\n"
        "  tinyqnn quantize mnist --policy runs/mnist-1/policy.json\n"
        "  tinyqnn quantize glyphs --weights P-3 --activations C-2 --seed 1\n"
        "  tinyqnn quantize cifar10 --model resnet20-16 --epochs 10 --download\n"
        "  tinyqnn quantize --resume runs/glyphs-1\n",
    )
    quantize.add_argument("dataset", nargs="?", default="glyphs", metavar="DATASET", help="glyphs (default), mnist, …")
    quantize.add_argument(
        "--model", help="lenet, separable-32, vgg-32, resnet20-16, fcdnn-128-4 (default: by data set)"
    )
    quantize.add_argument(
        "--method",
        choices=["autoqnn", "dfq", "fixed", "policy"],
        help="autoqnn (default): search for schemes, then widths; dfq: for widths of weights under a bound on the "
        "loss; fixed: the schemes that are named",
    )
    quantize.add_argument(
        "--target-bits", type=float, metavar="BITS", help="of autoqnn: the average width to reach (default: 2)"
    )
    quantize.add_argument("--theta", type=float, metavar="LOSS", help="of dfq: the bound on the validation loss")
    quantize.add_argument(
        "--coarse", action="store_true", help="of autoqnn: one scheme for all weights, one for all else"
    )
    quantize.add_argument(
        "--policy", metavar="FILE", help="quantize as this file says, such as runs/glyphs-1/policy.json"
    )
    quantize.add_argument(
        "--weights", default=None, metavar="SCHEME", help='of fixed: scheme and bits, such as C-3; "float" for none'
    )
    quantize.add_argument("--activations", default=None, metavar="SCHEME", help="the same for activations")
    quantize.add_argument(
        "--keep",
        default=None,
        metavar="LAYERS",
        help='left in float: "first", "last", names, several with commas, "none"',
    )
    quantize.add_argument("--epochs", type=int, help="of float training")
    quantize.add_argument("--search-epochs", type=int, help="of the search for schemes (autoqnn) or widths (dfq)")
    quantize.add_argument(
        "--retrain-epochs", type=int, help="of training after quantization; in the first quarter autoqnn learns widths"
    )
    quantize.add_argument(
        "--baselines", action="store_true", default=None, help="train uniform policies of the same size as well (slow)"
    )
    quantize.add_argument("--batch-size", type=int)
    quantize.add_argument("--seed", type=int, default=0)
    quantize.add_argument("--out", metavar="FOLDER", help="where results go (default: runs/DATASET-1, -2, …)")
    quantize.add_argument("--resume", metavar="FOLDER", help="go on with a run that was stopped")
    _root_option(quantize)
    quantize.add_argument("--download", action="store_true", help="fetch the data set if it is not there")
    quantize.add_argument("--threads", type=int, help="how many threads (default: all cores)")

    data = command(
        "data",
        "Show which data sets there are; fetch one that is not here yet.",
        "  tinyqnn data\n  tinyqnn data mnist\n  tinyqnn data cifar10 --root ~/datasets\n",
    )
    data.add_argument("dataset", nargs="?", metavar="DATASET")
    _root_option(data)

    bench = command(
        "bench",
        "Measure speed, side by side with others in one run.",
        "  tinyqnn bench training\n  tinyqnn bench training --vs torch\n  tinyqnn bench training resnet20 --profile\n"
        "  tinyqnn bench training vgg --picture roofline.png\n  tinyqnn bench first vgg\n"
        "  tinyqnn bench gemm\n  tinyqnn bench layer --threads 1\n  tinyqnn bench --host\n",
    )
    bench.add_argument(
        "what",
        nargs="?",
        choices=BENCHES,
        help="training: the time of a training step; first: of the very first, in which kernels are compiled; "
        "quantizing: of one with quantizers on every layer; inference: what a packed network takes to answer; "
        "gemm, gemv, layer: products of codes, of one row, a convolution",
    )
    bench.add_argument("cases", nargs="*", metavar="CASE", help="which networks (default: all)")
    bench.add_argument("--host", action="store_true", help="what the processor has and can do at most")
    rivals = "PyTorch in its two memory layouts; ONNX Runtime, for inference"
    bench.add_argument("--vs", choices=["torch", "onnx", "all"], help=rivals)
    bench.add_argument("--profile", action="store_true", help="only where our time goes, by operation")
    bench.add_argument("--picture", metavar="PNG", help="draw a step's operations under the processor's roof")
    bench.add_argument("--threads", type=int, default=2)
    bench.add_argument("--rounds", type=int, default=8, help="turns each engine takes, in each of its starts")
    bench.add_argument("--json", metavar="FILE", help="write the figures to FILE as well")
    _add_packed(command)
    _add_check(command)
    _add_papers(command)
    return top


def _add_packed(command: Any) -> None:
    inspect = command(
        "inspect",
        "Print what is in a packed model: its layers, their schemes, and where its bytes are.",
        "  tinyqnn inspect runs/mnist-1/model.npz\n",
    )
    inspect.add_argument("model", metavar="FILE")
    run = command(
        "run",
        "Let a packed model answer the test examples of a data set, and take the time.",
        "  tinyqnn run runs/mnist-1/model.npz --data mnist\n"
        "  tinyqnn run runs/ptb-1/model.npz --data ptb --batch-size 20\n",
    )
    run.add_argument("model", metavar="FILE")
    run.add_argument("--data", required=True, metavar="DATASET", help="whose test examples: mnist, cifar10, ptb, …")
    run.add_argument("--batch-size", type=int, default=256, help="examples at a time (default: 256)")
    run.add_argument("--limit", type=int, metavar="N", help="the first N examples only")
    run.add_argument("--threads", type=int, help="how many threads (default: all cores)")
    _root_option(run)


def _add_check(command: Any) -> None:
    check = command(
        "check",
        "Ask a quantizer, yours or ours, the laws that the papers' quantizers obey.",
        "  tinyqnn check mypackage.mymodule:MyQuantizer --as P-3\n"
        "  tinyqnn check mypackage.mymodule:my_function --bits 4\n"
        "  tinyqnn check C-3                             one of our own\n"
        "  tinyqnn check --matrix                        all laws, all schemes\n\n"
        "status: 0 if every law holds that must, 1 if one does not, 2 if it cannot be asked\n",
    )
    check.add_argument("quantizer", nargs="?", metavar="MODULE:NAME", help="a function, object or class; or a scheme")
    check.add_argument("--as", dest="like", metavar="SCHEME", help="what it claims to be, such as P-3")
    check.add_argument("--bits", type=int, help="its width, if it claims to be nothing")
    check.add_argument("--gradient", metavar="MODULE:NAME", help="a function (x, gradient of Q(x)) -> gradient of x")
    check.add_argument("--examples", type=int, default=200, help="random arrays a law (default: 200)")
    check.add_argument("--seed", type=int, default=0)
    check.add_argument("--matrix", action="store_true", help="which law holds for which scheme, and why not")
    check.add_argument("--json", metavar="FILE", help="write the answers to FILE as well")


def _add_papers(command: Any) -> None:
    reproduce = command(
        "reproduce",
        "Run an experiment of a paper: its table, its picture, its claims with their verdicts.",
        "  tinyqnn reproduce --list\n"
        "  tinyqnn reproduce holistic.fig2\n"
        "  tinyqnn reproduce holistic.fig2 --scale smoke\n"
        "  tinyqnn reproduce autoqnn --scale small              all of a paper\n\n"
        "a run that was stopped goes on where it was; status: 1 if a cell failed\n",
    )
    reproduce.add_argument("name", nargs="?", metavar="NAME", help="such as holistic.fig2, or a paper (default: list)")
    reproduce.add_argument("--list", action="store_true", help="what can be reproduced")
    reproduce.add_argument(
        "--scale",
        default="small",
        choices=["smoke", "small", "paper"],
        help="seconds; minutes on two cores (default); as the paper ran it",
    )
    reproduce.add_argument(
        "--out", default="runs/reproduce", metavar="FOLDER", help="cells and results (default: runs/reproduce)"
    )
    reproduce.add_argument(
        "--figures", metavar="FOLDER", help="write NAME.json, .txt, .png and the ledger of claims there, too"
    )
    reproduce.add_argument(
        "--jobs", type=int, help="worker processes, which share the cores, or $TINYQNN_THREADS (default: one for each)"
    )
    claims = command(
        "claims",
        "Print the ledger: each claim of the papers that was tested, with its verdict.",
        "  tinyqnn claims\n  tinyqnn claims holistic\n  tinyqnn claims --figures runs/figures\n",
    )
    claims.add_argument("paper", nargs="?", choices=["holistic", "dfq", "autoqnn"], metavar="PAPER")
    claims.add_argument("--figures", metavar="FOLDER", help="results to judge (default: figures/ of this project)")


def _root_option(to: argparse.ArgumentParser) -> None:
    to.add_argument("--root", metavar="FOLDER", help="where data lies (default: $TINYQNN_DATA, then the cache folder)")


def run_quantize(args: argparse.Namespace) -> int:
    """`tinyqnn quantize`."""
    from tinyqnn.quantize import job

    return job.main(args)


def run_data(args: argparse.Namespace) -> int:
    """`tinyqnn data`."""
    from tinyqnn import data

    if args.dataset is None:
        print(data.catalogue(args.root))
        return 0
    print(data.load(args.dataset, root=args.root, download=True))
    return 0


def run_bench(args: argparse.Namespace) -> int:
    """`tinyqnn bench`."""
    from tinyqnn.bench import training

    if args.what is None:
        if not args.host:
            raise ValueError(f"name what to measure: {', '.join(BENCHES)}; or --host for what the processor can do")
        args.what = "gemm"
    if (args.profile or args.picture) and args.what not in ("training", "quantizing"):
        raise ValueError(f"bench {args.what} has no training step to look into; leave --profile and --picture out")
    if args.what == "quantizing":
        return _bench_quantizing(args)
    if args.what == "first":
        return _bench_first(args)
    if args.what == "inference":
        return _bench_inference(args)
    if args.what != "training":
        return _bench_products(args)
    names = _cases(args, training.CASES)
    measured = {}
    if not args.profile:
        print(training.HEADING, flush=True)
        results = training.run(
            names,
            args.vs in ("torch", "all"),
            args.threads,
            args.rounds,
            lambda name, engines: print(training.line(name, engines), flush=True),
        )
        print()
        measured["cases"] = training.record(results)
    steps = {training.CASES[name].title: training.our_step(training.CASES[name]) for name in names}
    return _keep(args, {**measured, **_split(args, steps)})


def _split(args: argparse.Namespace, steps: Mapping[str, Callable[[], object]]) -> dict[str, Any]:
    """Show steps by operation, as tables and, where one is asked for, as a picture; return it as JSON wants it."""
    from dataclasses import asdict

    from tinyqnn import picture
    from tinyqnn.bench import roofline
    from tinyqnn.kernels import jit

    jit.set_num_threads(args.threads)
    over, found = roofline.roof(args.threads), {}
    print(f"the limit: {over.operations / 1e9:,.0f} · 10⁹ operations a second, {over.bytes / 1e9:.0f} GB/s\n")
    for title, step in steps.items():
        found[title] = roofline.spots(step)
        print(f"{title}\n{roofline.table(found[title], over)}\n", flush=True)
    if args.picture:
        with picture.look():
            figure = picture.figure(8, 3 * (len(found) // 2 + 1))
            roofline.draw(found, over, figure)
            picture.save(figure, args.picture)
    return {"roof": asdict(over), "spots": {title: list(map(asdict, spots)) for title, spots in found.items()}}


def _cases(args: argparse.Namespace, known: Collection[str]) -> list[str]:
    """The cases that were named, or all there are."""
    for name in args.cases:
        if name not in known:
            raise ValueError(f"there is no benchmark {name!r}; there are {', '.join(known)}")
    return args.cases or list(known)


def _keep(args: argparse.Namespace, results: Mapping[str, Any]) -> int:
    """Write what was measured, and where, if a file was named."""
    if args.json:
        from tinyqnn.provenance import environment

        _write_text(args.json, json.dumps({"environment": environment(), **results}, indent=2) + "\n")
    return 0


def _bench_first(args: argparse.Namespace) -> int:
    """`tinyqnn bench first`."""
    from tinyqnn.bench import first, training

    seconds = {}
    print(first.HEADING)
    for name in _cases(args, training.CASES):
        seconds[name] = first.measure(name)
        print(first.line(name, seconds[name]), flush=True)
    return _keep(args, {"seconds": seconds})


def _bench_quantizing(args: argparse.Namespace) -> int:
    """`tinyqnn bench quantizing`."""
    from tinyqnn.bench import quantizing, training

    names = _cases(args, quantizing.NAMES)
    if args.profile or args.picture:
        networks, scheme = [training.CASES[name] for name in names], quantizing.SCHEME
        return _keep(args, _split(args, {f"{n.title}, {scheme}": quantizing.steps(n)[scheme] for n in networks}))
    cases = {name: quantizing.record(quantizing.measure(name, args.rounds)) for name in names}
    print(quantizing.table(cases))
    return _keep(args, {"cases": cases})


def _bench_inference(args: argparse.Namespace) -> int:
    """`tinyqnn bench inference`."""
    from tinyqnn.bench import inference

    names = _cases(args, inference.CASES)
    rows = inference.run(names, args.vs, args.threads, args.rounds)
    print(inference.table(rows))
    return _keep(args, {"cases": rows})


def _bench_products(args: argparse.Namespace) -> int:
    """`tinyqnn bench gemm | gemv | layer`."""
    from tinyqnn.bench import gemm

    if args.cases:
        raise ValueError(f"bench {args.what} has no cases to choose from, got {' '.join(args.cases)}; leave them out")
    if args.host:
        results: dict[str, Any] = {"host": gemm.host(args.threads), "first_calls": gemm.first_calls()}
        print(gemm.host_table(results["host"]))
        for name, seconds in results["first_calls"].items():
            print(f"first call, compiled  {name:<14} {seconds:.1f} s")
    else:
        groups = ["gemm", "choice"] if args.what == "gemm" else [args.what]
        results = gemm.run(groups, args.threads, args.rounds)
        print(gemm.table(results))
    return _keep(args, results)


def run_packed(args: argparse.Namespace) -> int:
    """`tinyqnn inspect` and `tinyqnn run`."""
    from tinyqnn.deploy import command

    return command.inspect(args) if args.command == "inspect" else command.run(args)


def run_check(args: argparse.Namespace) -> int:
    """`tinyqnn check`."""
    from tinyqnn import spec

    return spec.main(args, write=_write_text)


def run_reproduce(args: argparse.Namespace) -> int:
    """`tinyqnn reproduce`."""
    from tinyqnn.papers import reproduce

    return reproduce.main(args)


def run_claims(args: argparse.Namespace) -> int:
    """`tinyqnn claims`."""
    from tinyqnn.papers import ledger

    return ledger.main(args)


def _write_text(path: str, text: str) -> None:
    """Write a whole file or none."""
    from tinyqnn import files

    with files.atomic_write(path, overwrite=True) as file:
        file.write(text.encode("utf-8"))


@contextlib.contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """A terminal that closes, or `kill`, stops a command as Ctrl-C does: with a checkpoint, and no workers left."""

    def stop(*how: Any) -> None:
        ctrl_c = signal.getsignal(signal.SIGINT)
        (ctrl_c if callable(ctrl_c) else signal.default_int_handler)(*how)

    before = {}
    if threading.current_thread() is threading.main_thread():  # handlers can be set there only
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # there is no SIGHUP on Windows
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores it, and is obeyed
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status: 0, 1 for an error, 2 for wrong arguments, 130 if it was stopped."""
    args = parser().parse_args(argv)
    if args.version:
        from tinyqnn import __version__

        print(f"tinyqnn {__version__}")
        return 0
    if args.command is None:
        print(WELCOME, end="")
        return 0
    if getattr(args, "threads", None) is not None:
        if args.threads < 1:
            raise SystemExit(f"tinyqnn: --threads is 1 or more, got {args.threads}")
        os.environ["TINYQNN_THREADS"] = str(args.threads)
    commands: dict[str, Any] = {
        "quantize": run_quantize,
        "reproduce": run_reproduce,
        "claims": run_claims,
        "data": run_data,
        "bench": run_bench,
        "inspect": run_packed,
        "run": run_packed,
        "check": run_check,
    }
    try:
        with _ended_like_ctrl_c():
            return commands[args.command](args)
    except KeyboardInterrupt as stop:
        print(f"\n{stop}" if str(stop) else "\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError) as error:
        if os.environ.get("TINYQNN_TRACEBACK"):
            raise
        print(f"tinyqnn: {error or type(error).__name__}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
