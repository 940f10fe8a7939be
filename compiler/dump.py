"""What each pass did: recorded while passes run, shown as tables and diffs, or written to a folder.

A `Recorder` is given to a `driver.Lowered`; without one, nothing of this module is loaded. The texts of
all steps are IR that `graphwright opt` reads, up to the machine's own languages.
"""

from __future__ import annotations

import difflib
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import replace as with_fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CompileError
from ..ir.loops import Kernel
from ..ir.printer import LOC_COLUMN
from ..ir.program import Call, Program
from ..passes.manager import PassReport

if TYPE_CHECKING:
    from .driver import Lowered

__all__ = ["Recorder", "Reports", "Step", "changes", "write_dump"]

SUFFIXES = {"llvm": "ll", "asm": "s", "cuda": "py", "ptx": "ptx"}


@dataclass(frozen=True)
class Step:
    """The IR after a pass, as text; `report` is None for what went in."""

    name: str
    text: str
    report: PassReport | None = None


class Reports(list[PassReport]):
    """Reports of passes in order; printed, a table with the rules that fired."""

    def __str__(self) -> str:
        lines = [f"{'pass':<18} {'ms':>9}  nodes"]
        for r in self:
            size = f"{r.before}" if r.before == r.after else f"{r.before} -> {r.after}"
            lines.append(f"{r.name:<18} {1e3 * r.seconds:9.2f}  {size}{'' if r.changed else '  (unchanged)'}")
            lines += [f"{'':<18} {count:>8}x  {rule}" for rule, count in r.fired.fired.most_common()]
        return "\n".join([*lines, f"{'total':<18} {1e3 * sum(r.seconds for r in self):9.2f}"])

    __repr__ = __str__


class Recorder:
    """Keeps the IR after each pass on a graph's way to a program.

    Parameters
    ----------
    on_step : called with each step as soon as it is made.
    """

    def __init__(self, on_step: Callable[[Step], object] | None = None) -> None:
        self.steps: list[Step] = []
        self.on_step = on_step
        self.kernels: dict[str, list[tuple[Kernel, PassReport | None]]] = {}

    def run(self, lowered: Lowered) -> Recorder:
        """Take a graph to its program; returns itself."""
        assert lowered.program.name == lowered.graph.name
        return self

    @property
    def reports(self) -> Reports:
        """What each pass did."""
        return Reports(step.report for step in self.steps if step.report is not None)

    def diff(self, name: str) -> str:
        """What one pass changed, as a unified diff; empty if nothing.

        Raises
        ------
        CompileError
            If no pass has that name.
        """
        for before, after in zip(self.steps, self.steps[1:]):
            if after.name == name:
                return changes(before, after)
        names = ", ".join(step.name for step in self.steps[1:])
        raise CompileError(f"there is no pass {name!r}; the passes are {names}")

    # --- what the pipelines call ---

    def graph(self, ir: Any, report: PassReport | None) -> None:
        self._add(report.name if report else "input", ir, report)

    def kernel(self, ir: Kernel, report: PassReport | None) -> None:
        self.kernels.setdefault(ir.name, []).append((ir, report))

    def program(self, ir: Any, report: PassReport | None) -> None:
        if report is None:
            return
        if report.name == "lower-to-program":
            self._kernel_passes(ir, report)
        else:
            self._add(report.name, ir, report)

    def _kernel_passes(self, program: Program, report: PassReport) -> None:
        """One step for each pass over kernels, all kernels together: first as they were lowered."""
        rounds = list(zip(*self.kernels.values()))
        merged = [_merged([r for _, r in round_ if r is not None]) for round_ in rounds[1:]]
        own = report.seconds - sum(r.seconds for r in merged)
        reports = [with_fields(report, seconds=own), *merged]
        for round_, r in zip(rounds or [()], reports):
            made = {kernel.name: kernel for kernel, _ in round_}
            self._add(r.name, program.with_calls(partial(_with_kernel, made)), r)

    def _add(self, name: str, ir: Any, report: PassReport | None) -> None:
        step = Step(name, str(ir), report)
        self.steps.append(step)
        if self.on_step:
            self.on_step(step)


def _with_kernel(made: Mapping[str, Kernel], call: Call) -> Call:
    return with_fields(call, kernel=made[call.kernel.name])


def _merged(reports: list[PassReport]) -> PassReport:
    """One pass over several kernels."""
    first = reports[0]
    fired = type(first.fired)()
    for r in reports:
        fired.fired.update(r.fired.fired)
    return PassReport(
        first.name, sum(r.seconds for r in reports), sum(r.before for r in reports), sum(r.after for r in reports),
        fired, any(r.changed for r in reports),
    )  # fmt: skip


# --- differences -----------------------------------------------------------------------------------

_NUMBER = re.compile(r"%(\d+)\b")
_DEFINITION = re.compile(r"\s*%(\d+) = ")
_LOCATION = re.compile(r" +(?=loc\(\")")


def changes(before: Step, after: Step) -> str:
    """A unified diff of two texts, in which values of a graph that stayed keep their numbers."""
    a, b = before.text, after.text
    if a.startswith("graphwright.graph") and b.startswith("graphwright.graph"):
        b = _renumbered(a, b)
    lines = difflib.unified_diff(a.splitlines(), b.splitlines(), before.name, after.name, lineterm="", n=2)
    return "".join(f"{line}\n" for line in lines)


def _renumbered(before: str, after: str) -> str:
    """A graph's text with the numbers that its values have in the text before, wherever a line stayed.

    Of lines that others replaced, the last value takes the last one's number: most often it is what stands for it.
    """
    old, new = before.splitlines(), after.splitlines()
    old_scopes, new_scopes = _scopes(old), _scopes(new)
    erased = tuple([_NUMBER.sub("%", _LOCATION.sub(" ", line)) for line in lines] for lines in (old, new))
    names: dict[int, dict[str, str]] = {}
    partner: dict[int, int] = {}
    for tag, i, end, j, new_end in difflib.SequenceMatcher(None, erased[0], erased[1]).get_opcodes():
        pairs = zip(range(i, end), range(j, new_end)) if tag == "equal" else _last(old, i, end, new, j, new_end)
        for a, b in pairs:
            x, y = _DEFINITION.match(old[a]), _DEFINITION.match(new[b])
            if x and y and partner.setdefault(new_scopes[b], old_scopes[a]) == old_scopes[a]:
                names.setdefault(new_scopes[b], {})[y[1]] = x[1]
    largest: dict[int, int] = {}
    for scope, line in zip(old_scopes, old):
        if x := _DEFINITION.match(line):
            largest[scope] = max(largest.get(scope, -1), int(x[1]))
    for scope, line in zip(new_scopes, new):
        y = _DEFINITION.match(line)
        if y and scope in partner and y[1] not in names[scope]:
            largest[partner[scope]] += 1
            names[scope][y[1]] = str(largest[partner[scope]])
    return "\n".join(_renamed(line, names.get(scope, {})) for scope, line in zip(new_scopes, new))


def _last(old: list[str], i: int, end: int, new: list[str], j: int, new_end: int) -> list[tuple[int, int]]:
    """The last definition among some lines, with that among those that replace them."""
    a = [k for k in range(i, end) if _DEFINITION.match(old[k])]
    b = [k for k in range(j, new_end) if _DEFINITION.match(new[k])]
    return [(a[-1], b[-1])] if a and b else []


def _renamed(line: str, names: dict[str, str]) -> str:
    code, *location = _LOCATION.split(_NUMBER.sub(lambda m: f"%{names.get(m[1], m[1])}", line), maxsplit=1)
    return f"{code:<{LOC_COLUMN}}  {location[0]}" if location else code


def _scopes(lines: list[str]) -> list[int]:
    """For each line, the number of the region in whose names it is written."""
    stack, count, found = [0], 0, []
    for line in lines:
        if line.lstrip().startswith("}"):
            stack.pop()
        found.append(stack[-1] if stack else 0)
        if line.endswith("{"):
            count += 1
            stack.append(count)
    return found


# --- files -----------------------------------------------------------------------------------------


def write_dump(lowered: Lowered, directory: str | os.PathLike[str]) -> Path:
    """Write the text of every pass and stage, diffs between neighbours, and an index.

    The files go to a folder with the function's name. If a pass fails, what was made before it is there.

    Parameters
    ----------
    lowered : the graph on its way; it is left as it is, its passes run again.
    directory : where the folders are; made if it does not exist.

    Returns
    -------
    The function's folder.
    """
    writer = _Writer(_folder(Path(directory), lowered.graph.name), lowered.graph.name)
    recorder = Recorder(writer.add)
    try:
        again = lowered.recorded(recorder)
        recorder.run(again)
        module = getattr(again, "module", None)  # before LLVM's own passes
        if module is not None:
            writer.add(Step("llvm-emitted", module), "ll")
        for stage, text in again.code_stages().items():
            writer.add(Step(stage, text()), SUFFIXES[stage])
    except Exception as error:
        writer.fail(error, recorder)
        raise
    finally:
        writer.index()
    return writer.folder


_taken: dict[Path, int] = {}
_lock = threading.Lock()


def _folder(directory: Path, name: str) -> Path:
    """A folder for a function, without the files of an earlier dump; a second one of that name gets a number."""
    path = directory.absolute() / (re.sub(r"[^\w.-]", "_", name).lstrip(".") or "f")
    with _lock:
        count = _taken[path] = _taken.get(path, 0) + 1
    path = path if count == 1 else path.with_name(f"{path.name}.{count}")
    path.mkdir(parents=True, exist_ok=True)
    for old in path.iterdir():
        if old.name == "index.md" or re.fullmatch(r"\d\d-[\w-]+\.\w+", old.name):
            old.unlink()
    return path


class _Writer:
    """Numbered files in one folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.lines = [f"# {name}: what each pass made\n"]
        self.lines += ["| text | difference | ms | nodes | rewrites |", "|---|---|---|---|---|"]
        self.rules: list[str] = []
        self.last: Step | None = None
        self.count = 0

    def add(self, step: Step, suffix: str = "gwir") -> None:
        file = f"{self.count:02}-{step.name}.{suffix}"
        self._write(file, step.text if step.text.endswith("\n") else f"{step.text}\n")
        self.lines.append(f"| [{file}]({file}) | {self._difference(step, suffix)} | {_columns(step.report)} |")
        if step.report and step.report.fired.total:
            self.rules.append(f"\n## Rules that fired in {step.name}\n")
            self.rules += [f"- {count} × `{rule}`" for rule, count in step.report.fired.fired.most_common()]
        self.last = step if suffix == "gwir" else None
        self.count += 1

    def _difference(self, step: Step, suffix: str) -> str:
        """The diff to the step before, if that is written in the same language."""
        if self.last is None or suffix != "gwir" or self.last.text.split()[0] != step.text.split()[0]:
            return ""
        text = changes(self.last, step)
        if not text:
            return "none"
        file = f"{self.count:02}-{step.name}.diff"
        self._write(file, text)
        added = sum(line.startswith("+") for line in text.splitlines()) - 1
        return f"[+{added} −{sum(line.startswith('-') for line in text.splitlines()) - 1}]({file})"

    def fail(self, error: Exception, recorder: Recorder) -> None:
        """Note an error, and the kernel that was in work."""
        self.rules.append(f"\n## Then it failed\n\n```\n{type(error).__name__}: {error}\n```")
        written = self.last is not None and self.last.text.startswith("graphwright.program")
        if recorder.kernels and not written:
            kernel, _ = list(recorder.kernels.values())[-1][-1]
            self.add(Step("last-kernel", str(kernel)))

    def index(self) -> None:
        self._write("index.md", "\n".join([*self.lines, *self.rules]) + "\n")

    def _write(self, file: str, text: str) -> None:
        (self.folder / file).write_text(text, encoding="utf-8", newline="\n")


def _columns(report: PassReport | None) -> str:
    if report is None:
        return " | | "
    nodes = f"{report.before}" if report.before == report.after else f"{report.before} → {report.after}"
    return f"{1e3 * report.seconds:.2f} | {nodes} | {report.fired.total or ''}"
