"""The command line: ``graphwright demo | ir | run | opt | inspect | explain | report | tune | cache |
doctor``.

What the user got wrong is told in one line on standard error, with exit code 2. Each command imports what it
needs when it runs: ``run`` and ``inspect`` work where only the runtime is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import runpy
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import GraphwrightError

if TYPE_CHECKING:
    from .function import Function

__all__ = ["main"]


class UsageError(GraphwrightError):
    """A command was given something it cannot work with."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0, or 2 after an error of the user's."""
    argv, after = _split(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(argv, argparse.Namespace(args=after))
    try:
        args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # `graphwright ir ... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (GraphwrightError, OSError, ValueError) as e:
        print(f"graphwright: error: {_one_line(e)}", file=sys.stderr)
        return 2
    return 0


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands before and after the first ``--``."""
    k = list(argv).index("--") if "--" in argv else len(argv)
    return list(argv[:k]), list(argv[k + 1 :])


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines) or type(error).__name__


# --- the parser ----------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="graphwright",
        description="A symbolic graph compiler for deep learning: define, differentiate, compile, ship.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        _add_demo, _add_ir, _add_run, _add_opt, _add_inspect, _add_explain, _add_report, _add_tune, _add_cache,
        _add_doctor,
    ):
        add(commands)
    return parser


def _command(commands: Any, name: str, run: Any, text: str, more: str = "") -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}. {more}".strip()
    )
    parser.set_defaults(run=run)
    return parser


def _add_demo(commands: Any) -> None:
    p = _command(
        commands, "demo", _demo, "train a small CNN on handwritten digits, and ship it",
        "Shows the curves, the IR of every stage, and the artifact running without the compiler.",
    )
    p.add_argument("--data", metavar="PATH.npz", help="28x28 digits: arrays x_train, y_train, x_test, y_test")
    p.add_argument("--out", metavar="DIR", default=os.path.join("build", "demo"), help="default: %(default)s")
    p.add_argument("--epochs", metavar="N", type=_positive, help="default: 40, with --data 8")
    p.add_argument("--seed", metavar="N", type=int, default=0, help="default: %(default)s")


def _add_ir(commands: Any) -> None:
    p = _command(
        commands, "ir", _ir, "print the IR of a script's functions, or of an artifact's",
        "A script is run, with the arguments that follow --; what it prints goes to standard error.",
    )
    p.add_argument("source", metavar="SCRIPT_OR_GWA")
    p.add_argument(
        "--stage", metavar="STAGE", default="optimized",
        help="graph, optimized (default), program, loops; then llvm, asm for a CPU, or cuda, ptx for a GPU",
    )
    p.add_argument("--function", metavar="NAME", help="only this function (default: all)")


def _add_run(commands: Any) -> None:
    p = _command(
        commands, "run", _run, "call an entry point of an artifact, or run a graph's text",
        "Without --output, the results are printed. A text is run by the interpreter and compiled, and the results "
        "compared; inputs that are not given are random.",
    )
    p.add_argument("model", metavar="MODEL.gwa|FILE.gwir")
    p.add_argument("entry", metavar="ENTRY", nargs="?", help="of an artifact")
    p.add_argument(
        "--input", metavar="NAME=FILE.npy", action="append", default=[],
        help="an argument: an array's file, or a number; once for each input",
    )
    p.add_argument("--output", metavar="FILE", help=".npy for one result, .npz for several")
    p.add_argument("--dims", metavar="N=5,M=3", type=_sizes, default={}, help="of a text: sizes of symbolic dimensions")
    p.add_argument("--seed", metavar="N", type=int, default=0, help="of a text: for random inputs (default: 0)")


def _add_opt(commands: Any) -> None:
    p = _command(
        commands, "opt", _opt, "run passes over the text of a graph, program or kernel",
        "What comes out is printed; --list-passes shows what there is.",
    )
    p.add_argument("file", metavar="FILE.gwir", nargs="?", default="-", help="default: standard input")
    p.add_argument("--passes", metavar="NAME,NAME", default="", help="in order; optimize and lower stand for several")
    p.add_argument("--print-after", metavar="all|NAME", help="print the IR after each pass, or after one")
    p.add_argument("--verify-each", action="store_true", help="check the IR after each pass")
    p.add_argument("--time-passes", action="store_true", help="times and rules that fired, on standard error")
    p.add_argument("--split", action="store_true", help="several texts, with lines // ----- between them")
    p.add_argument("--host", action="store_true", help="schedule for this machine, not for a fixed one")
    p.add_argument("--list-passes", action="store_true", help="show the passes")


def _add_explain(commands: Any) -> None:
    p = _command(
        commands, "explain", _explain, "show which kernel of an artifact computes what of which source line",
        "Without --kernel and --line, all kernels.",
    )
    p.add_argument("model", metavar="MODEL.gwa")
    p.add_argument("--entry", metavar="ENTRY", help="only this entry point (default: all)")
    which = p.add_mutually_exclusive_group()
    which.add_argument("--kernel", metavar="NAME", help="one kernel: its code, loops, ops and source lines")
    which.add_argument("--line", metavar="FILE.py:LINE", help="what became of a source line")


def _add_inspect(commands: Any) -> None:
    p = _command(commands, "inspect", _inspect, "show what an artifact holds, without loading its code")
    p.add_argument("model", metavar="MODEL.gwa")


def _add_report(commands: Any) -> None:
    p = _command(
        commands, "report", _report, "write an HTML page about a script's functions, or an artifact's",
        "It shows the graph after each pass, the kernels with their code, and the memory. "
        "A script is run, with the arguments that follow --.",
    )
    p.add_argument("source", metavar="SCRIPT_OR_GWA")
    p.add_argument("-o", "--output", metavar="FILE.html", help="default: the function's name")
    p.add_argument("--function", metavar="NAME", help="only this function (default: all, each in its own file)")
    p.add_argument(
        "--dim", metavar="N=64", action="append", default=[],
        help="a symbolic dimension at which memory is shown first; once for each",
    )


def _add_tune(commands: Any) -> None:
    p = _command(
        commands, "tune", _tune, "measure schedules of a script's functions, and remember the fastest",
        "They are measured on random arguments. gw.function(..., tune=...) then finds them in the cache. "
        "A script is run, with the arguments that follow --.",
    )
    p.add_argument("source", metavar="SCRIPT")
    p.add_argument("--time", metavar="30s", default="30s", help="for each function (default: %(default)s)")
    p.add_argument("--function", metavar="NAME", help="only this function (default: all)")
    p.add_argument("--dims", metavar="N=5,M=3", type=_sizes, default={}, help="of symbolic dimensions (default: 64)")


def _add_cache(commands: Any) -> None:
    p = _command(commands, "cache", _cache, "show or clear the cache of compiled code")
    p.add_argument("action", nargs="?", choices=("info", "clear"), default="info")


def _add_doctor(commands: Any) -> None:
    _command(commands, "doctor", _doctor, "show what this machine has: CPU, LLVM, CUDA, linkers, versions")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def _sizes(text: str) -> dict[str, int]:
    """``{"N": 5}`` for ``N=5``."""
    try:
        return {name.strip(): int(size) for name, size in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write N=5, or N=5,M=3") from None


# --- demo, cache, doctor -------------------------------------------------------------------------


def _demo(args: argparse.Namespace) -> None:
    missing = [name for name in ("matplotlib", "sklearn", "tqdm") if not _installed(name)]
    if missing:
        raise UsageError(f"the demo needs {', '.join(missing)}: pip install 'graphwright[demo]'")
    from .demo import run

    run(args.out, data=args.data, epochs=args.epochs, seed=args.seed)


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def _cache(args: argparse.Namespace) -> None:
    from ..compiler.cache import Cache

    cache = Cache()
    before = cache.info()
    if args.action == "clear":
        cache.clear()
        print(f"removed {before.entries} entries, {_size(before.nbytes)}, from {before.directory}")
    else:
        print(f"{before.directory}: {before.entries} entries, {_size(before.nbytes)} of {_size(before.limit)}")


def _doctor(args: argparse.Namespace) -> None:
    from .doctor import report

    rows = report()
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{name:<{width}}  {text}")


def _size(nbytes: int) -> str:
    """``1.5 MB``: decimal units."""
    value, unit = float(nbytes), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


# --- ir ------------------------------------------------------------------------------------------


def _ir(args: argparse.Namespace) -> None:
    texts = _artifact_texts(args) if _is_artifact(args.source) else _script_texts(args)
    print("\n".join(text if text.endswith("\n") else f"{text}\n" for text in texts), end="")


def _is_artifact(path: str) -> bool:
    with open(path, "rb") as f:
        return f.read(2) == b"PK"


def _artifact_texts(args: argparse.Namespace) -> list[str]:
    from ..runtime.artifact import read

    manifest, members = read(args.source)
    entries = _chosen(manifest["entries"], args.function, args.source)
    for name in entries:
        stages = manifest["entries"][name]["ir"]
        if args.stage not in stages:
            raise UsageError(f"{args.source} holds {name} only at the stages {', '.join(stages)}")
    return [bytes(members[f"ir/{name}/{args.stage}.gwir"]).decode() for name in entries]


def _script_texts(args: argparse.Namespace) -> list[str]:
    functions = _functions_of(args.source, args.args)
    return [functions[name].ir(args.stage) for name in _chosen(functions, args.function, args.source)]


def _chosen(available: Mapping[str, object], name: str | None, source: str) -> list[str]:
    if not available:
        raise UsageError(f"{source} makes no function; nothing calls gw.function")
    if name is None:
        return list(available)
    if name not in available:
        raise UsageError(f"{source} has no function {name!r}; it has {', '.join(available)}")
    return [name]


def _functions_of(script: str, arguments: Sequence[str]) -> dict[str, Function]:
    """Run a script; the functions that it made by name, of those with one name the last."""
    from . import function

    made: list[Function] = []
    function.observers.append(made.append)
    try:
        with contextlib.redirect_stdout(sys.stderr), _as_main(script, arguments):
            runpy.run_path(script, run_name="__main__")
    except SystemExit as e:
        if e.code:
            raise UsageError(f"{script} exited with {e.code}") from e
    except Exception as e:
        raise UsageError(f"{_where(e, script)}: {type(e).__name__}: {_one_line(e)}") from e
    finally:
        function.observers.remove(made.append)
    return {f.name: f for f in made}


@contextlib.contextmanager
def _as_main(script: str, arguments: Sequence[str]) -> Iterator[None]:
    """What Python sets up for a script: its arguments, and its folder on the path."""
    saved = sys.argv, sys.path
    sys.argv, sys.path = [script, *arguments], [os.path.dirname(os.path.abspath(script)), *sys.path]
    try:
        yield
    finally:
        sys.argv, sys.path = saved


def _where(error: Exception, script: str) -> str:
    """The script's line where an error came from."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == script]
    return f"{script}:{lines[-1]}" if lines else script


# --- report --------------------------------------------------------------------------------------


def _report(args: argparse.Namespace) -> None:
    from .report import artifact_subject, subject_of, write_report

    dims = dict(map(_dimension, args.dim))
    if _is_artifact(args.source):
        from ..runtime.artifact import read

        manifest, members = read(args.source)
        chosen = _chosen(manifest["entries"], args.function, args.source)
        texts = {name: {s: f"ir/{name}/{s}.gwir" for s in manifest["entries"][name]["ir"]} for name in chosen}
        stages = {name: {s: bytes(members[m]).decode() for s, m in of.items()} for name, of in texts.items()}
        subjects = [artifact_subject(name, stages[name]) for name in chosen]
    else:
        functions = _functions_of(args.source, args.args)
        subjects = [subject_of(functions[name]) for name in _chosen(functions, args.function, args.source)]
    if args.output and len(subjects) > 1:
        names = ", ".join(s.name for s in subjects)
        raise UsageError(f"{args.source} has several functions ({names}): choose one with --function")
    for subject in subjects:
        path = args.output or f"{subject.name}.html"
        write_report(path, subject, dims=dims)
        print(f"{path}: {_size(os.path.getsize(path))}")


def _dimension(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    if not name or not value.isdecimal():
        raise UsageError(f"--dim {text}: write NAME=SIZE")
    return name, int(value)


def _tune(args: argparse.Namespace) -> None:
    from .tune import parse_duration, tuned_for_sizes

    seconds = parse_duration(args.time)
    if seconds is None:
        raise UsageError(f"--time {args.time}: write 30s, 2min or 500ms")
    functions = _functions_of(args.source, args.args)
    for name in _chosen(functions, args.function, args.source):
        f = functions[name]
        _, found = tuned_for_sizes(f.graph, f.compiled, seconds, args.dims)
        print(f"{name}: {len(found)} kernels to choose for")
        for kernel in found:
            print(f"  {kernel}")


# --- run -----------------------------------------------------------------------------------------


def _run(args: argparse.Namespace) -> None:
    if not _is_artifact(args.model):
        _run_text(args)
        return
    from ..runtime.artifact import load

    model = load(args.model)
    if args.entry is None:
        raise UsageError(f"which entry point of {args.model}? It has {', '.join(model.entries)}")
    if args.entry not in model.entries:
        raise UsageError(f"{args.model} has no entry point {args.entry!r}; it has {', '.join(model.entries)}")
    results = _named(model.entries[args.entry](**dict(map(_input, args.input))))
    if args.output:
        _save(args.output, results)
        return
    for name, array in results.items():
        print(f"{name}: {array.dtype}{list(array.shape)}\n{array}")


def _run_text(args: argparse.Namespace) -> None:
    from .replay import replay

    if args.entry is not None:
        raise UsageError(f"{args.model} is no artifact: only artifacts have entry points")
    with open(args.model, encoding="utf-8") as f:
        text = f.read()
    results = replay(text, dict(map(_input, args.input)), args.dims, args.seed)
    if args.output:
        _save(args.output, results)


def _input(text: str) -> tuple[str, Any]:
    """A name, and the array in a file, or a number."""
    import numpy as np

    name, found, source = text.partition("=")
    if not (name and found and source):
        raise UsageError(f"--input {text}: write NAME=FILE.npy")
    with contextlib.suppress(ValueError):
        return name, float(source) if any(c in source for c in ".einEIN") else int(source)
    try:
        array = np.load(source, allow_pickle=False)
    except (ValueError, EOFError) as e:
        raise UsageError(f"{source} is not an array's .npy file: {_one_line(e)}") from e
    if not isinstance(array, np.ndarray):
        raise UsageError(f"{source} holds several arrays; give a .npy file")
    return name, array


def _named(results: Any, name: str = "") -> dict[str, Any]:
    """The arrays of nested results, named by their path."""
    if results is None:
        return {}
    if isinstance(results, (list, tuple)):
        results = {str(k): item for k, item in enumerate(results)}
    if not isinstance(results, dict):
        return {name or "result": results}
    named = (_named(item, f"{name}.{key}" if name else key) for key, item in results.items())
    return {path: array for found in named for path, array in found.items()}


def _save(path: str, results: Mapping[str, Any]) -> None:
    import numpy as np

    if path.endswith(".npz"):
        np.savez(path, **results)
    elif path.endswith(".npy") and len(results) == 1:
        np.save(path, next(iter(results.values())))
    elif path.endswith(".npy"):
        raise UsageError(f"there are {len(results)} results ({', '.join(results)}); write them to a .npz file")
    else:
        raise UsageError(f"--output {path}: the name must end in .npy or .npz")


# --- opt, explain --------------------------------------------------------------------------------


def _opt(args: argparse.Namespace) -> None:
    from .opt import list_passes, transform

    if args.list_passes:
        list_passes()
        return
    transform(
        args.file, args.passes, print_after=args.print_after, verify_each=args.verify_each,
        time_passes=args.time_passes, split=args.split, host=args.host,
    )


def _explain(args: argparse.Namespace) -> None:
    from .explain import explain

    print("\n".join(explain(args.model, args.entry, args.kernel, args.line)))


# --- inspect -------------------------------------------------------------------------------------


def _inspect(args: argparse.Namespace) -> None:
    from ..runtime import safetensors
    from ..runtime.artifact import WEIGHTS, read
    from ..runtime.signature import Signature

    manifest, members = read(args.model)
    print(f"{args.model}: {_size(os.path.getsize(args.model))}, schema {manifest['schema']}, {manifest['producer']}")
    print("\nentry points")
    for name, entry in manifest["entries"].items():
        signature = Signature.from_json(entry["signature"])
        takes, gives = (", ".join(map(str, slots)) for slots in (signature.inputs, signature.outputs))
        print(f"  {name}({takes}) -> ({gives})")
        updated = ", ".join(signature.states[k].name for k in signature.updated)
        print(f"    updates  {updated or 'nothing'}")
        print(f"    memory   {signature.arena_text} bytes")
        print(f"    IR       {', '.join(entry['ir'])}")
    print("\ntargets")
    for name, target in manifest["targets"].items():
        code = len(members[f"code/{name}.bin"])
        features = ", ".join(target["features"]) or "none"
        print(f"  {name}: {_size(code)} of code for {target['triple']}; needs {features}")
    print("\nvariables")
    for name, array in safetensors.decode(members[WEIGHTS]).items():
        print(f"  {name}: {array.dtype}{list(array.shape)}, {_size(array.nbytes)}")
