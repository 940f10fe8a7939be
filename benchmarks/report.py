"""The results as JSON, as tables in Markdown, and as a plot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["markdown", "ratio", "write"]

OURS = ("graphwright", "graphwright_static")
UNSTEADY = 1.3


def write(run: dict[str, Any], folder: Path) -> list[Path]:
    """Write ``results.json``, ``results.md``, and with matplotlib and something to compare ``results.png``."""
    files = [folder / "results.json", folder / "results.md"]
    files[0].write_text(json.dumps(run, indent=1) + "\n")
    files[1].write_text(markdown(run))
    try:
        import matplotlib
    except ImportError:
        return files
    matplotlib.use("agg")
    if any(ratio(row) for row in run["workloads"]):
        files.append(folder / "results.png")
        _plot(run, files[-1])
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
    parts = [_head(run), _times(run), _limits(run), _compile_times(run), _memory(run), _notes(run)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(columns: list[str], rows: list[list[str]]) -> str:
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
        rows.append([row["title"], *cells, f"{best[0]:.2f} ({run['titles'][best[1]]})" if best else "-"])
    heading = "Median time of a call in ms, and the time of the fastest peer divided by Graphwright's:\n\n"
    return heading + _table(["", *(run["titles"][n] for n in names), "ratio"], rows)


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
    return "Against the machine's limit:\n\n" + _table(["", "rate", "limit ms", "share"], rows) if rows else ""


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
    ]
    heading = "Seconds to compile and run once, with an empty cache / again in a new process:\n\n"
    return heading + _table(["", *(run["titles"][n] for n in names)], rows) if names else ""


def _pair(cell: dict[str, Any]) -> str:
    return f"{cell['cold_s']:.2f} / {cell['cached_s']:.2f}" if "cached_s" in cell else "-"


def _memory(run: dict[str, Any]) -> str:
    names = run["order"]
    rows = [
        [row["title"], *(_megabytes(row["peers"].get(name, {})) for name in names)] for row in run["workloads"]
    ]
    return "Peak resident memory of the process in MB:\n\n" + _table(["", *(run["titles"][n] for n in names)], rows)


def _megabytes(cell: dict[str, Any]) -> str:
    return f"{cell['peak_rss'] / 2**20:.0f}" if cell.get("peak_rss") else "-"


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


def _plot(run: dict[str, Any], path: Path) -> None:
    """Bars of each peer's time in units of ours."""
    from matplotlib import pyplot as plt

    rows = [row for row in run["workloads"] if ratio(row)]
    names = [n for n in run["order"] if n != OURS[0] and any("median_s" in row["peers"].get(n, {}) for row in rows)]
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.16 * len(rows) * (len(names) + 1)), layout="constrained")
    height = 0.8 / max(len(names), 1)
    for number, name in enumerate(names):
        places, times = [], []
        for place, row in enumerate(rows):
            cell = row["peers"].get(name, {})
            if "median_s" in cell:
                places.append(place + (number + 0.5) * height - 0.4)
                times.append(cell["median_s"] / row["peers"][OURS[0]]["median_s"])
        bars = axes.barh(places, times, 0.9 * height, label=run["titles"][name])
        axes.bar_label(bars, fmt="%.2g", fontsize=7, padding=2)
    axes.axvline(1, color="black", linewidth=1)
    axes.set(xscale="log", xlabel="time divided by Graphwright's (right of the line: slower than Graphwright)")
    axes.set_yticks(range(len(rows)), [row["title"] for row in rows])
    axes.invert_yaxis()
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
