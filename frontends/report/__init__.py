"""Reports: a compiled function as one HTML page that shows what the compiler made of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .data import Subject, report_data, subject_of

__all__ = ["Subject", "artifact_subject", "report_data", "subject_of", "write_report"]


def write_report(
    path: str | os.PathLike[str],
    subject: Subject,
    profile: Sequence[Mapping[str, Any]] | None = None,
    dims: Mapping[str, int] | None = None,
) -> None:
    """Write a report's page; see `report_data` for the parameters.

    Raises
    ------
    GraphError
        If a profile's row or a dimension names nothing of the function.
    OSError
        If the file cannot be written.
    """
    from .page import render

    text = render(report_data(subject, profile, dims))
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.write(text)


def artifact_subject(name: str, stages: Mapping[str, str]) -> Subject:
    """What an artifact holds of an entry point: from stage names to texts."""
    from ...ir.parser import parse_graph, parse_program
    from .data import Snapshot

    snapshots = [
        Snapshot("as written", parse_graph(stages["graph"]), "the graph as it was declared"),
        Snapshot("optimized", parse_graph(stages["optimized"]), "after all passes"),
    ]
    note = "An artifact holds the IR of some stages, and machine code without its text."
    return Subject(name, "artifact", snapshots, parse_program(stages["program"]), note=note)
