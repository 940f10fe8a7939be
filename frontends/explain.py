"""``graphwright explain``: from an artifact's kernels to source lines and back; needs the runtime only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import GraphwrightError
from ..runtime.artifact import read
from ..runtime.provenance import at_line, parse

__all__ = ["explain"]

Record = dict[str, Any]


def explain(path: str, entry: str | None = None, kernel: str | None = None, line: str | None = None) -> Iterator[str]:
    """The lines of the answer: what one kernel is, what a source line became, or which kernels there are.

    Parameters
    ----------
    path : an artifact.
    entry : an entry point; all if None.
    kernel : a kernel's name, or that of one of its functions.
    line : ``file.py:12``.

    Raises
    ------
    GraphwrightError
        If there is no such entry, kernel or line, or the artifact has no record of provenance.
    """
    records = _records(path, entry)
    if kernel is None and line is None:
        for name, record in records.items():
            yield f"{name}: {len(record['kernels'])} kernels"
            yield from (f"  {_summary(k)}" for k in record["kernels"])
        return
    if line is not None:
        yield from _at_line(records, line)
        return
    found = [(name, k) for name, r in records.items() for k in r["kernels"] if kernel in _names(k)]
    if not found:
        names = dict.fromkeys(k["name"] for r in records.values() for k in r["kernels"])
        raise GraphwrightError(f"{path} has no kernel {kernel!r}; it has {', '.join(names)}")
    for name, k in found:
        yield from _kernel(name, k)


def _records(path: str, entry: str | None) -> dict[str, Record]:
    manifest, members = read(path)
    entries = list(manifest["entries"])
    if entry is not None and entry not in entries:
        raise GraphwrightError(f"{path} has no entry point {entry!r}; it has {', '.join(entries)}")
    chosen = {n: members.get(f"ir/{n}/provenance.json") for n in entries if entry in (None, n)}
    records = {name: parse(bytes(data)) for name, data in chosen.items() if data is not None}
    if not records:
        raise GraphwrightError(f"{path} holds no record of provenance")
    return records


def _names(kernel: Record) -> set[str]:
    return {kernel["name"], *(place["function"] for place in kernel["code"])}


def _at_line(records: dict[str, Record], line: str) -> Iterator[str]:
    file, _, number = line.rpartition(":")
    if not file or not number.isdecimal():
        raise GraphwrightError(f"--line {line}: write FILE.py:LINE")
    found = {name: at_line(record, file, int(number)) for name, record in records.items()}
    if not any(found.values()):
        known = {f"{row['file']}:{row['line']}": None for r in records.values() for row in r["lines"]}
        raise GraphwrightError(f"no kernel comes from {line}; kernels come from {', '.join(known) or 'no known line'}")
    for name, kernels in found.items():
        if kernels:
            yield f"{line} in {name}"
        for kernel, ops in kernels:
            yield f"  {_summary(kernel)}"
            yield from (f"    {text}" for text in _ops(ops))


def _summary(kernel: Record) -> str:
    size = sum(place["size"] for place in kernel["code"])
    lines = dict.fromkeys(f"{x['file']}:{x['line']}" for op in kernel["ops"] for x in op["locations"])
    return f"{kernel['name']}: {kernel['reason']}; {size} bytes; {', '.join(lines) or 'no source line'}"


def _kernel(entry: str, kernel: Record) -> Iterator[str]:
    yield f"kernel {kernel['name']} of {entry}"
    yield f"  why    {kernel['reason']}"
    yield f"  calls  {kernel['calls']}"
    yield f"  loops  ir/{entry}/loops.gwir, line {kernel['loops']}"
    for place in kernel["code"]:
        start, end = place["offset"], place["offset"] + place["size"]
        yield f"  code   {place['target']} {start:#x}..{end:#x}  {place['function']}, {place['size']} bytes"
    yield "  ops"
    yield from (f"    {text}" for text in _ops(kernel["ops"]))


def _ops(ops: Iterable[Record]) -> Iterator[str]:
    rows = [(f"{op['op']} : {op['type']}", op["part"] + ", result" * op["result"], _places(op)) for op in ops]
    widths = [max((len(row[k]) for row in rows), default=0) for k in (0, 1)]
    for head, part, places in rows:
        yield f"{head:<{widths[0]}}  {part:<{widths[1]}}  {places}".rstrip()


def _places(op: Record) -> str:
    return ", ".join(
        f"{x['file']}:{x['line']}" + (f" (gradient{' of ' + x['of'] if x['of'] else ''})" if x["role"] else "")
        for x in op["locations"]
    )
