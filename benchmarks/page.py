"""Put the measured tables and plots into the documentation.

::

    python -m benchmarks.page --results build/bench --runs build/bench1,build/bench2,build/bench

rewrites, in ``docs/performance.md`` and ``README.md``, what stands between ``<!-- results NAME -->`` and
``<!-- end -->``, and copies the plots to ``docs/images/``. Prose is left as it is.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import plots, report

__all__ = ["main", "replaced"]

_ROOT = Path(__file__).resolve().parent.parent
_PART = re.compile(r"(<!-- results (\w+) -->\n)[\s\S]*?(<!-- end -->)")


def replaced(text: str, parts: dict[str, str]) -> str:
    """A page with the marked parts that were measured; the others stay as they are."""

    def part(match: re.Match[str]) -> str:
        found = parts.get(match[2])
        return match[0] if found is None else match[1] + (f"{found}\n" if found else "") + match[3]

    return _PART.sub(part, text)


def _scaling(found: dict[str, Any]) -> dict[str, str]:
    """Tables of what the plots show."""
    parts: dict[str, str] = {}
    if found.get("elements"):
        counts = sorted({p["elements"] for points in found["elements"].values() for p in points})
        decades = [10**k for k in range(3, 9) if counts and 10**k <= 1.2 * counts[-1]]
        rows = [
            [name, *(_nearest(points, decade) for decade in decades)] for name, points in found["elements"].items()
        ]
        parts["elements"] = report.table(["ns per element, at", *(f"10^{len(str(d)) - 1}" for d in decades)], rows)
    if found.get("nodes"):
        rows = [
            [name, f"{p['nodes']}", f"{p['kernels']}", f"{p['seconds']:.2f}", f"{1e6 * p['seconds'] / p['nodes']:.0f}"]
            for name, points in found["nodes"].items() for p in points
        ]
        parts["nodes"] = report.table(["", "nodes", "kernels", "s", "µs per node"], rows)
    if found.get("arena"):
        rows = [
            [p["name"], f"{p['arena']:,}", f"{p['bound']:,}", f"{p['arena'] / p['bound']:.3f}"] for p in found["arena"]
        ]
        parts["arena"] = report.table(["", "arena, bytes", "most alive, bytes", "ratio"], rows)
    return parts


def _ratios(runs: Sequence[dict[str, Any]]) -> str:
    """For each workload what its ratio is to be, and what it was in each run, with the fastest peer there."""
    found = [{row["name"]: report.ratio(row) for row in run["workloads"]} for run in runs]
    rows = []
    for row in runs[0]["workloads"]:
        cells = [ratios.get(row["name"]) for ratios in found]
        named = [f"{of[0]:.2f} ({run['titles'][of[1]]})" if of else "-" for of, run in zip(cells, runs)]
        rows.append([row["title"], f"{row['aim']:g}" if row["aim"] else "-", *named])
    return report.table(["", "aim", *(f"run {k + 1}" for k in range(len(runs)))], rows)


def _nearest(points: list[dict[str, Any]], count: int) -> str:
    point = min(points, key=lambda p: abs(p["elements"] / count - 1))
    return f"{1e9 * point['seconds'] / point['work']:.3g}" if abs(point["elements"] / count - 1) < 0.2 else "-"


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the pages."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__.split("\n")[0])
    parser.add_argument("--results", default=str(_ROOT / "build" / "bench"), help="folder of the results (build/bench)")
    parser.add_argument("--runs", metavar="A,B", help="folders of results of several runs: a table of their ratios")
    parser.add_argument("--root", default=str(_ROOT), help="folder with README.md and docs/")
    options = parser.parse_args(arguments)
    folder, root = Path(options.results), Path(options.root)
    images = root / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    parts: dict[str, str] = {}
    if (file := folder / "results.json").exists():
        run = json.loads(file.read_text())
        parts |= report.tables(run) | {"short": report.short(run)}
        if plots.results(run, images / "benchmarks.png"):
            parts["times"] += "\n\n![Time, ratio to the fastest peer, share of the limit](images/benchmarks.png)"
    if options.runs:
        parts["runs"] = _ratios([json.loads((Path(f) / "results.json").read_text()) for f in options.runs.split(",")])
    if (file := folder / "scaling.json").exists():
        scaling = json.loads(file.read_text())
        parts |= _scaling(scaling)
        for plot in plots.scaling(scaling, images):
            name = plot.stem.removeprefix("scaling-")
            parts[name] += f"\n\n![{name.capitalize()}](images/{plot.name})"
    for page in (root / "README.md", root / "docs" / "performance.md"):
        page.write_text(replaced(page.read_text(), parts))
        print("written:", page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
