"""The page: one HTML file that holds its data, its program and its style, and asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from functools import lru_cache
from importlib.resources import files
from typing import Any

__all__ = ["render"]

LIBRARIES = (
    "d3-color", "d3-dispatch", "d3-ease", "d3-interpolate", "d3-path", "d3-selection", "d3-timer", "d3-drag",
    "d3-shape", "d3-transition", "d3-zoom", "dagre",
)  # in an order in which each finds what it needs
PARTS = ("model", "layout", "graph", "panel", "memory", "tables", "main")


def render(data: dict[str, Any]) -> str:
    """The page that shows the data of `report_data`."""
    program, style = _program(), _asset("style.css")
    policy = f"default-src 'none'; script-src '{_hash(program)}'; style-src '{_hash(style)}'; base-uri 'none'"
    fields = {
        "policy": html.escape(policy, quote=True).replace("&#x27;", "'"),
        "title": html.escape(f"{data['name']} · Graphwright"),
        "style": style,
        "notice": html.escape(_asset("vendor/NOTICE.txt")),
        "data": embedded(data),
        "program": program,
    }
    page = _asset("page.html")
    parts = page.split("{{")
    return parts[0] + "".join(fields[name] + rest for name, rest in (p.split("}}", 1) for p in parts[1:]))


def embedded(data: Any) -> str:
    """JSON that can stand in a script element: no ``<`` in it closes the element or opens a comment."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@lru_cache(maxsize=1)
def _program() -> str:
    libraries = [_library(name) for name in LIBRARIES]
    own = "\n".join(_asset(f"app/{name}.js") for name in PARTS)
    program = "\n;\n".join([*libraries, f'(() => {{\n"use strict";\n{own}\n}})();\n'])
    assert "</script" not in program.lower(), "the page's program would end its own element"
    return program


def _library(name: str) -> str:
    text = _asset(f"vendor/{name}.min.js")
    return "\n".join(line for line in text.splitlines() if not line.startswith("//# sourceMappingURL="))


def _asset(path: str) -> str:
    return (files(__package__) / "assets").joinpath(*path.split("/")).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """What a content security policy calls an inline element by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
