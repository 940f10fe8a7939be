"""The house stands as designed: who imports whom, what is imported when, what is packaged."""

from __future__ import annotations

import ast
import configparser
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("ir", "passes", "compiler", "runtime", "frontends")
HEAVY = {"llvmlite", "numba", "sympy", "scipy", "matplotlib", "sklearn"}


def sources(*rooms: str) -> list[Path]:
    return sorted(p for room in rooms for p in (ROOT / room).rglob("*.py"))


def loaded_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after some code."""
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def third_party(modules: set[str]) -> set[str]:
    names = {m.partition(".")[0] for m in modules} - set(sys.stdlib_module_names)
    return {n for n in names if not n.startswith(("_", "sitecustomize"))}


def test_import_law():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    environment = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_the_import_law_names_every_room():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    layers = config["importlinter:contract:layers"]["layers"]
    assert all(f"graphwright.{room}" in layers for room in ROOMS)


def test_every_package_is_shipped():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = config["options"]["packages"].split()
    found = {p.parent for room in ROOMS for p in (ROOT / room).rglob("__init__.py")} | {ROOT}
    assert sorted(listed) == sorted(".".join(("graphwright", *p.relative_to(ROOT).parts)) for p in found)
    strays = [p for p in sources(*ROOMS) if p.parent not in found]
    assert not strays, "folders of modules without __init__.py"


@pytest.mark.parametrize("path", sources(*ROOMS), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_inside_the_package_are_relative(path):
    programs = {ROOT / "frontends" / "demo.py", ROOT / "frontends" / "demo_child.py"}  # written as users would
    absolute = [name for name, _ in imports(path) if name.partition(".")[0] == "graphwright"]
    assert not absolute or path in programs


@pytest.mark.parametrize("path", sources("ir", "passes", "runtime"), ids=lambda p: str(p.relative_to(ROOT)))
def test_core_modules_import_nothing_heavy_at_the_top(path):
    tops = {name.partition(".")[0] for name, top in imports(path) if top}
    assert not tops & HEAVY


def imports(path: Path) -> list[tuple[str, bool]]:
    """Absolute imports of a file, and whether they stand at the top level."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.append((node.module, id(node) in top))
    return found


def test_importing_the_package_loads_nothing_heavy():
    loaded = loaded_after("import graphwright")
    assert not third_party(loaded) & HEAVY
    assert not [m for m in loaded if m.startswith(("graphwright.compiler", "graphwright.passes", "graphwright.ir"))]


def test_a_graph_is_built_without_the_compiler():
    loaded = loaded_after(
        "import numpy as np, graphwright as gw\n"
        "x = gw.placeholder('x', 'float32', ('N', 4))\n"
        "W = gw.Variable(np.ones((4, 2), np.float32), name='W')\n"
        "gw.nn.softmax(x @ W)\n"
    )
    assert third_party(loaded) <= {"graphwright", "numpy"}
    assert not [m for m in loaded if m.startswith("graphwright.compiler")]


def test_compiling_loads_llvm_the_first_time_only(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHWRIGHT_CACHE_DIR", str(tmp_path))
    code = (
        "import numpy as np, graphwright as gw\n"
        "x = gw.placeholder('x', 'float32', ('N', 4))\n"
        "gw.function([x], gw.sum(gw.tanh(x), axis=0))(np.ones((3, 4), np.float32))\n"
    )
    assert third_party(loaded_after(code)) == {"graphwright", "llvmlite", "numpy"}
    assert third_party(loaded_after(code)) == {"graphwright", "numpy"}


def test_an_artifact_is_loaded_and_run_by_the_runtime_alone(tmp_path):
    import numpy as np

    import graphwright as gw

    x = gw.placeholder("x", "float32", ("N", 3))
    total = gw.Variable(np.zeros(3, np.float32), name="total")
    step = gw.function([x], gw.sum(x), updates={total: total + gw.sum(x, axis=0)}, name="step")
    gw.export(tmp_path / "model.gwa", {"step": step})
    loaded = loaded_after(
        "import numpy as np, graphwright as gw\n"
        f"model = gw.load({str(tmp_path / 'model.gwa')!r})\n"
        "assert model.step(np.ones((5, 3), np.float32)) == 15\n"
        "assert model.variables['total'].tolist() == [5, 5, 5]\n"
    )
    assert third_party(loaded) <= {"graphwright", "numpy"}
    ours = {m for m in loaded if m.startswith("graphwright")}
    assert all(m.startswith(("graphwright.runtime", "graphwright.errors")) or m == "graphwright" for m in ours)
