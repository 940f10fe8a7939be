"""The plots, with matplotlib where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["results", "scaling"]

Run = dict[str, Any]
COLORS = ("#0b5394", "#d9822b", "#7d3c98", "#2e8b57", "#b03a2e", "#7f8c8d", "#c2a000", "#17a2b8")


def _pyplot() -> Any:
    """None where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot


def results(run: Run, path: Path) -> bool:
    """Time, time in units of the fastest peer's, and share of the machine's limit; False without matplotlib."""
    from .report import limit_seconds

    plt = _pyplot()
    if plt is None:
        return False
    rows = [row for row in run["workloads"] if any("median_s" in cell for cell in row["peers"].values())]
    names = [n for n in run["order"] if any("median_s" in row["peers"].get(n, {}) for row in rows)]

    def to_fastest(row: Run, time: float) -> float | None:
        fastest = _fastest(row)
        return time / fastest if fastest else None

    def share(row: Run, time: float) -> float | None:
        limit = limit_seconds(run, row)
        return 100 * limit / time if limit else None

    panels: list[tuple[str, bool, Callable[[Run, float], float | None]]] = [
        ("time, ms", True, lambda row, time: 1e3 * time), ("time / that of the fastest peer", True, to_fastest),
        ("share of the machine's limit, %", False, share),
    ]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(14, 1.4 + 0.13 * len(rows) * (len(names) + 1)), sharey=True, layout="constrained",
    )
    for axis, (label, logarithmic, value) in zip(axes, panels):
        _bars(axis, run, rows, names, value)
        axis.set(xlabel=label, **({"xscale": "log"} if logarithmic else {}))
        axis.grid(axis="x", alpha=0.3)
    axes[1].axvline(1, color="black", linewidth=1)
    axes[0].set_yticks(range(len(rows)), [row["title"] for row in rows], fontsize=8)
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(names), fontsize=8)
    _save(figure, path, plt)
    return True


def _fastest(row: Run) -> float | None:
    from .report import OURS

    return min((c["median_s"] for n, c in row["peers"].items() if n not in OURS and "median_s" in c), default=None)


def _bars(axis: Any, run: Run, rows: list[Run], names: list[str], value: Callable[[Run, float], float | None]) -> None:
    height = 0.8 / len(names)
    for number, name in enumerate(names):
        places, lengths = [], []
        for place, row in enumerate(rows):
            time = row["peers"].get(name, {}).get("median_s")
            length = value(row, time) if time else None
            if length is not None:
                places.append(place + (number + 0.5) * height - 0.4)
                lengths.append(length)
        axis.barh(places, lengths, 0.9 * height, label=run["titles"][name], color=COLORS[number % len(COLORS)])


def scaling(found: Run, folder: Path) -> list[Path]:
    """One plot for elements, one for nodes, one for the arena; none without matplotlib."""
    plt = _pyplot()
    if plt is None:
        return []
    files = []
    for name, draw in (("elements", _elements), ("nodes", _nodes), ("arena", _arena)):
        if found.get(name):
            figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
            draw(axis, found[name])
            files.append(folder / f"scaling-{name}.png")
            _save(figure, files[-1], plt)
    return files


def _elements(axis: Any, found: Run) -> None:
    for number, (name, points) in enumerate(found.items()):
        counts = [p["elements"] for p in points]
        axis.plot(counts, [1e9 * p["seconds"] / p["work"] for p in points], "o-", label=name, color=COLORS[number])
    axis.set(xscale="log", yscale="log", xlabel="elements", ylabel="ns per element (matrix product: per 1000 flops)")
    axis.figure.legend(loc="outside upper center", ncols=2, fontsize=8)
    axis.grid(alpha=0.3)


def _nodes(axis: Any, found: Run) -> None:
    for number, (name, points) in enumerate(found.items()):
        axis.plot(
            [p["nodes"] for p in points], [1e6 * p["seconds"] / p["nodes"] for p in points], "o-", label=name,
            color=COLORS[number],
        )
    axis.set(xscale="log", ylim=(0, None), xlabel="nodes", ylabel="compile time, µs per node")
    axis.figure.legend(loc="outside upper center", ncols=2, fontsize=8)
    axis.grid(alpha=0.3)


def _arena(axis: Any, found: list[Run]) -> None:
    places = range(len(found))
    axis.barh(places, [p["arena"] / p["bound"] for p in found], color=COLORS[0])
    axis.axvline(1.1, color="black", linewidth=1)
    axis.set_yticks(places, [f"{p['name']} ({p['bound'] / 2**20:.2f} MB)" for p in found], fontsize=8)
    axis.set(xlabel="arena / most bytes alive at once")
    axis.invert_yaxis()


def _save(figure: Any, path: Path, plt: Any) -> None:
    figure.savefig(path, dpi=110)
    plt.close(figure)
