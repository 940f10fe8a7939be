"""The results as JSON, as tables in Markdown, and as a plot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import plots
from .workload import workloads

__all__ = ["joined", "limit_seconds", "markdown", "ratio", "short", "table", "tables", "write"]

OURS = ("graphwright", "graphwright_static")
UNSTEADY = 1.3


def write(run: dict[str, Any], folder: Path) -> list[Path]:
    """Write ``results.json``, ``results.md``, and with matplotlib and something to compare ``results.png``."""
    files = [folder / "results.json", folder / "results.md"]
    files[0].write_text(json.dumps(run, indent=1) + "\n")
    files[1].write_text(markdown(run))
    if any(ratio(row) for row in run["workloads"]) and plots.results(run, folder / "results.png"):
        files.append(folder / "results.png")
    return files


def ratio(row: dict[str, Any], ours: str = OURS[0]) -> tuple[float, str] | None:
    """How many times longer than we the fastest peer takes, and which it is."""
    peers = {name: cell["median_s"] for name, cell in row["peers"].items() if name not in OURS and "median_s" in cell}
    mine = row["peers"].get(ours, {}).get("median_s")
    if not peers or mine is None:
        return None
    fastest = min(peers, key=peers.__getitem__)
    return peers[fastest] / mine, fastest


def markdown(run: dict[str, Any]) -> str:
    """The tables: times, the rate we reach, compile times, what was left out."""
    return "\n\n".join(part for part in tables(run).values() if part) + "\n"


def tables(run: dict[str, Any]) -> dict[str, str]:
    """The parts of the report by name; those with nothing to say are empty."""
    return {
        "machine": _head(run), "times": _times(run), "limits": _limits(run), "compile": _compile_times(run),
        "batch": _new_batch(run), "memory": _memory(run), "notes": _notes(run),
    }


def short(run: dict[str, Any]) -> str:
    """A table of a few columns: our time, the fastest peer's, and their ratio."""
    rows = []
    for row in run["workloads"]:
        best = ratio(row)
        if best:
            cells = (row["peers"][name] for name in (OURS[0], best[1]))
            rows.append([row["title"], *map(_milliseconds, cells), run["titles"][best[1]], f"{best[0]:.2f}"])
    return table(["", "Graphwright, ms", "fastest peer, ms", "which", "ratio"], rows)


def joined(before: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """A run with the rows of one before that it did not measure again; the machine is as the last one found it."""
    rows = {row["name"]: row for row in [*before["workloads"], *run["workloads"]]}
    order = [w.name for w in workloads() if w.name in rows]
    peers = list(dict.fromkeys([*run["order"], *before["order"]]))
    named = {key: before[key] | run[key] for key in ("titles", "versions")}
    return run | named | {"order": peers, "workloads": [rows[name] for name in order]}


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown, numbers to the right."""
    lines = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _head(run: dict[str, Any]) -> str:
    m = run["machine"]
    limits = [f"{m['flops'] / 1e9:.0f} GFLOP/s"] if m["flops"] else []
    limits += [f"{m['bandwidth'] / 1e9:.0f} GB/s"] if m["bandwidth"] else []
    versions = ", ".join(f"{run['titles'][name]} {version}" for name, version in run["versions"].items())
    return (
        f"{m['cpu']}, {run['threads']} threads, measured limits {' and '.join(limits) or 'unknown'}; "
        f"load {m['load']:.1f} before; {m['date']}. {versions}."
    )


def _times(run: dict[str, Any]) -> str:
    names = run["order"]
    rows = []
    for row in run["workloads"]:
        best = ratio(row)
        cells = [_milliseconds(row["peers"].get(name, {})) for name in names]
        reached = f"{best[0]:.2f} ({run['titles'][best[1]]})" if best else "-"
        rows.append([row["title"], *cells, reached, _aim(row, best)])
    heading = (
        "Median time of a call in ms, the time of the fastest peer divided by Graphwright's, "
        "and what this ratio is to be at least:\n\n"
    )
    return heading + table(["", *(run["titles"][n] for n in names), "ratio", "aim"], rows)


def _aim(row: dict[str, Any], best: tuple[float, str] | None) -> str:
    if best is None:
        return f"{row['aim']:g}"
    return f"{row['aim']:g}, met" if best[0] >= row["aim"] else f"{row['aim']:g}, missed"


def _milliseconds(cell: dict[str, Any]) -> str:
    if "median_s" not in cell:
        return "-"
    value = 1e3 * cell["median_s"]
    return f"{value:.{max(0, 3 if value >= 0.1 else 5)}f}" if value < 10 else f"{value:.1f}"


def _limits(run: dict[str, Any]) -> str:
    rows = []
    for row in run["workloads"]:
        for name in OURS:
            cell = row["peers"].get(name, {})
            if "median_s" not in cell:
                continue
            time = cell["median_s"]
            units = (("flops", "GFLOP/s"), ("nbytes", "GB/s"))
            rates = [f"{row[key] / time / 1e9:.1f} {unit}" for key, unit in units if row[key]]
            limit = limit_seconds(run, row)
            if rates:
                share = [f"{1e3 * limit:.3f}", f"{100 * limit / time:.0f} %"] if limit else ["-", "-"]
                rows.append([f"{row['title']}: {run['titles'][name]}", ", ".join(rates), *share])
    return "Against the machine's limit:\n\n" + table(["", "rate", "limit ms", "share"], rows) if rows else ""


def unsteady(cell: dict[str, Any]) -> float:
    """How many times longer the slowest round took than the fastest."""
    return max(cell["round_medians_s"]) / min(cell["round_medians_s"])


def limit_seconds(run: dict[str, Any], row: dict[str, Any]) -> float | None:
    """The time that arithmetic or memory traffic alone needs."""
    m = run["machine"]
    times = [
        row[work] / m[speed] for work, speed in (("flops", "flops"), ("nbytes", "bandwidth")) if row[work] and m[speed]
    ]
    return max(times, default=None)


def _compile_times(run: dict[str, Any]) -> str:
    names = [n for n in run["order"] if any("cached_s" in row["peers"].get(n, {}) for row in run["workloads"])]
    rows = [
        [row["title"], *(_pair(row["peers"].get(name, {})) for name in names)] for row in run["workloads"]
        if any("cached_s" in cell for cell in row["peers"].values())
    ]
    heading = "Seconds to compile and run once, with an empty cache / again in a new process:\n\n"
    return heading + table(["", *(run["titles"][n] for n in names)], rows) if names else ""


def _pair(cell: dict[str, Any]) -> str:
    return f"{cell['cold_s']:.2f} / {cell['cached_s']:.2f}" if "cached_s" in cell else "-"


def _new_batch(run: dict[str, Any]) -> str:
    names = [n for n in run["order"] if any("new_batch_s" in row["peers"].get(n, {}) for row in run["workloads"])]
    rows = []
    for row in run["workloads"]:
        cells = [row["peers"].get(name, {}) for name in names]
        if any("new_batch_s" in cell for cell in cells):
            rows.append([row["title"], *map(_latency, cells)])
    heading = "Milliseconds of the first call with another batch size / of the second:\n\n"
    return heading + table(["", *(run["titles"][n] for n in names)], rows) if rows else ""


def _latency(cell: dict[str, Any]) -> str:
    if "new_batch_s" not in cell:
        return "-"
    return " / ".join(f"{1e3 * cell[key]:.3g}" for key in ("new_batch_s", "again_s"))


def _memory(run: dict[str, Any]) -> str:
    names = run["order"]
    rows = [
        [row["title"], *(_megabytes(row["peers"].get(name, {})) for name in names)] for row in run["workloads"]
    ]
    heading = (
        "Peak resident memory of the process in MB (above what it had after importing the peer; "
        "scratch memory of a call, where the peer tells it):\n\n"
    )
    return heading + table(["", *(run["titles"][n] for n in names)], rows)


def _megabytes(cell: dict[str, Any]) -> str:
    if not cell.get("peak_rss"):
        return "-"
    more = [f"{(cell['peak_rss'] - cell['imported_rss']) / 2**20:.0f}"] if cell.get("imported_rss") else []
    more += [f"{cell['scratch'] / 2**20:.2f}"] if "scratch" in cell else []
    return f"{cell['peak_rss'] / 2**20:.0f}" + (f" ({'; '.join(more)})" if more else "")


def _notes(run: dict[str, Any]) -> str:
    lines = []
    for row in run["workloads"]:
        for name, cell in row["peers"].items():
            if "failure" in cell and not cell["failure"].startswith("missing"):
                lines.append(f"- {row['title']}, {run['titles'][name]}: {cell['failure']}")
    factors = [unsteady(cell) for row in run["workloads"] for cell in row["peers"].values() if "median_s" in cell]
    many = sum(factor > UNSTEADY for factor in factors)
    if many:
        lines.append(
            f"- the machine was busy: in {many} of {len(factors)} measurements the rounds differ by more "
            f"than a factor of {UNSTEADY} in their medians, at most {max(factors):.1f}"
        )
    missing = sorted({
        run["titles"][name] for row in run["workloads"] for name, cell in row["peers"].items()
        if cell.get("failure", "").startswith("missing")
    })
    if missing:
        lines.append(f"- not installed: {', '.join(missing)}")
    return "\n".join(lines)
