"""What the documentation says is so: its code runs, its IR is what is printed, its files and commands exist.

In README.md and docs/*.md, the ``python`` blocks of a file run one after another in one namespace. An ``mlir``
block is IR text: it is parsed, and if the block before it is ``python``, it is what that printed (rewrite it with
``pytest --update-golden``). A line ``...`` stands for lines left out.
"""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from graphwright.frontends import cli
from graphwright.ir.parser import parse_graph, parse_kernel, parse_program

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PARSERS = {"graph": parse_graph, "program": parse_program, "loops": parse_kernel}

pytestmark = pytest.mark.usefixtures("registry")  # documents and examples define ops
documents = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)


@dataclass(frozen=True)
class Block:
    """A fenced block, and the line its text begins at."""

    language: str
    text: str
    line: int


def blocks(path: Path) -> list[Block]:
    found, opened = [], None
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        fence = re.fullmatch(r"```(\w*)", line)
        if fence and opened is None:
            opened = fence[1], number
        elif fence:
            language, start = opened
            found.append(Block(language, "".join(f"{line}\n" for line in lines[start : number - 1]), start + 1))
            opened = None
    assert opened is None, f"{path.name}: the block that begins at line {opened[1]} has no end"
    return found


@documents
def test_code_runs_and_prints_what_is_shown(path, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    printed, previous, corrected = "", "", {}
    for block in blocks(path):
        if block.language == "python":
            printed = run(block, namespace)
        elif block.language == "mlir" and previous == "python":
            if request.config.getoption("--update-golden"):
                corrected[block] = printed
            else:
                assert shows(block.text, printed), f"{path.name}:{block.line} is not what was printed:\n{printed}"
        previous = block.language
    rewrite(path, corrected)


def run(block: Block, namespace: dict[str, object]) -> str:
    """Run a block; its name in locations is that in its first line's comment, else ``example.py``."""
    named = re.match(r"# (\w+\.py)\b", block.text)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(block.text, named[1] if named else "example.py", "exec"), namespace)
    return out.getvalue()


def shows(excerpt: str, printed: str) -> bool:
    pieces = [re.escape(piece.strip("\n")) for piece in re.split(r"(?m)^\s*\.\.\.$", excerpt)]
    return re.search(r"[\s\S]*".join(pieces), printed) is not None


def rewrite(path: Path, corrected: dict[Block, str]) -> None:
    lines = path.read_text().splitlines()
    for block, text in sorted(corrected.items(), key=lambda item: -item[0].line):
        if "..." not in block.text.split():
            end = block.line - 1 + len(block.text.splitlines())
            lines[block.line - 1 : end] = text.strip("\n").splitlines()
    if corrected:
        path.write_text("\n".join(lines) + "\n")


@documents
def test_ir_is_in_the_language_of_this_release(path):
    for block in blocks(path):
        if "..." in block.text.split():
            continue
        texts = [t for t in re.split(r"(?m)^(?=graphwright\.\w+ v\d+$)", block.text) if t.startswith("graphwright.")]
        for text in texts:
            form = re.match(r"graphwright\.(\w+) v1\n", text)
            assert form, f"{path.name}:{block.line}: an unknown header"
            assert PARSERS[form[1]](text)


@documents
def test_commands_exist(path):
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))
    for block in blocks(path):
        for line in block.text.splitlines() if block.language == "sh" else ():
            program, *arguments = line.partition("#")[0].split() or [""]
            if program == "make":
                assert arguments[0] in targets, line
            elif program == "graphwright":
                argv, _ = cli._split(arguments)
                assert cli._parser().parse_args(argv).run, line
            else:
                assert program in ("", "git", "pip", "python", "cd"), f"{path.name}: unknown command {line}"


@documents
def test_files_that_are_named_exist(path):
    text = re.sub(r"```[\s\S]*?```", "", path.read_text())
    named = re.findall(r"`([\w./-]+\.(?:py|md|cfg|toml|gwir)|[\w./-]+/)`", text)
    linked = [t for t in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in t]
    missing = [n for n in named if not (ROOT / n).exists() and not n.startswith("build/")]
    missing += [n for n in linked if not (path.parent / n).exists()]
    assert not missing


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_examples_run(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), *["--quick"] * ("--quick" in path.read_text())])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out
    assert not list(tmp_path.iterdir())
