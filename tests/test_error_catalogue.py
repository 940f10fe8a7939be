"""The catalogue of errors: each snippet of the table fails with the text that ``docs/errors.md`` shows.

``pytest --update-golden`` writes the document anew.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import error_cases_control  # noqa: F401  (a part of the table)
import error_cases_modules  # noqa: F401  (a part of the table)
import error_cases_random  # noqa: F401  (a part of the table)
import error_cases_running  # noqa: F401  (its second half)
import error_cases_transforms  # noqa: F401
import numpy as np
import pytest
from error_cases import CASES, GROUPS, Case

import graphwright as gw
from graphwright import nn
from graphwright.frontends import cli, tensor
from graphwright.ir import graph

DOCUMENT = Path(__file__).parent.parent / "docs" / "errors.md"
BUILDING = tuple(GROUPS)[: tuple(GROUPS).index("functions") + 1]
SHOWN: dict[str, str] = {}
"""The messages that this run has seen, by anchor: what ``--update-golden`` writes."""
HEAD = """\
# Errors

Every mistake gets an error of its own class under `gw.GraphwrightError`. It names the op or the input, the types, your
line and those of the operands, and what would be right; nothing has changed after it. Of the calls of a function that
stands, Python's traceback names the line. Classes that Python has a word for are that as well: a `gw.DTypeError` is a
`TypeError`, a `gw.IndexRangeError` an `IndexError`.

This catalogue is written by `tests/test_error_catalogue.py` from what really happens. Each snippet is a file "user.py"
in which these names are known, and fails in its last statement:

```py
import numpy as np
import graphwright as gw
from graphwright import nn
from pathlib import Path
```
"""
FAULTS = """
## Faults of the compiler

If a pass fails, or LLVM refuses what it is given, the error names the pass, and what the pass was given is written to a
`.gwir` file: to the folder of dumps ([dumps.md](dumps.md)), if there is one, else to that for temporary files. The
message ends with the command that replays it, such as `graphwright opt FILE.gwir --passes=fuse --verify-each`, and the
error's attribute `reproducer` is the file's path. Such a file makes a good bug report.
"""


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch, registry) -> Iterator[None]:
    """An empty folder, and no values of other tests, whose lines would be named instead of the snippet's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(graph, "_interned", type(graph._interned)())
    monkeypatch.setattr(tensor, "_states", type(tensor._states)())  # nor their variables' names
    yield


def message(case: Case, capsys: pytest.CaptureFixture[str]) -> str:
    """What the user of a case sees at last."""
    names = {"__name__": "__main__", "np": np, "gw": gw, "nn": nn, "Path": Path}
    error = None
    try:
        exec(compile(case.code, "user.py", "exec"), names)
    except gw.GraphwrightError as caught:
        error = caught
    if case.command:
        assert error is None, f"the preparation fails: {error}"
        assert cli.main(shlex.split(case.command)[1:]) == 2
        shown = capsys.readouterr().err
    else:
        assert error is not None, "nothing was raised"
        shown = f"{type(error).__name__}: {error}"
    return re.sub(rf"(?:/private)?{re.escape(str(Path.cwd()))}/", "", shown).rstrip()


def documented() -> dict[str, str]:
    """The messages in the document, by anchor."""
    text = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    pieces = re.split(r'<a id="([\w-]+)"></a>\n', text)[1:]
    shown = (re.search(r"```text\n(.*?)\n```\n", piece, re.DOTALL) for piece in pieces[1::2])
    return {name: found[1] if found else "" for name, found in zip(pieces[::2], shown)}


def anchor(case: Case) -> str:
    return f"{case.group}-{case.id}"


def section(case: Case, shown: str) -> str:
    code = f"```py\n{case.code.strip()}\n```\n\n" if case.code.strip() else ""
    command = f"```console\n$ {case.command}\n```\n\n" if case.command else ""
    return f'\n<a id="{anchor(case)}"></a>\n### {case.title}\n\n{code}{command}```text\n{shown}\n```\n'


@pytest.mark.parametrize("case", CASES, ids=anchor)
def test_a_mistake_has_the_documented_error(case, capsys, request):
    shown = message(case, capsys)
    assert str(Path.cwd()) not in shown and not re.search(r"0x[0-9a-f]{6}", shown)
    if case.group in BUILDING and not re.search(r"\.(ir|diff|memory)\(", case.code):
        assert "user.py:" in shown, f"no line is named:\n{shown}"
    SHOWN[anchor(case)] = shown
    if not request.config.getoption("--update-golden"):
        assert shown == documented().get(anchor(case)), "if that is right, use --update-golden"


def test_the_catalogue_is_the_table(golden, request):
    known = documented()
    if request.config.getoption("--update-golden"):
        known |= SHOWN
    text = [HEAD]
    for group, title in GROUPS.items():
        text.append(f"\n## {title}\n")
        for case in (c for c in CASES if c.group == group):
            text.append(section(case, known.get(anchor(case), "")))
    golden(DOCUMENT, "".join([*text, FAULTS]))


def test_the_table_is_large_and_its_names_are_unique():
    assert len(CASES) >= 60
    assert len({anchor(c) for c in CASES}) == len({c.code + c.command for c in CASES}) == len(CASES)
    assert {c.group for c in CASES} == set(GROUPS)
