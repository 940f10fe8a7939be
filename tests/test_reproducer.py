"""Faults planted into the compiler: the error names the pass, and `graphwright opt` replays the file it wrote."""

from __future__ import annotations

import copy
import shlex
from dataclasses import replace

import pytest

import graphwright as gw
from graphwright.frontends import cli
from graphwright.ir.graph import Graph
from graphwright.ir.types import TensorType
from graphwright.passes import pipelines
from graphwright.passes import registry as pass_registry
from graphwright.passes.manager import Pipeline


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """An empty cache, so that passes run; an own folder for temporary files."""
    monkeypatch.setenv("GRAPHWRIGHT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def plant(monkeypatch, name, run):
    """Let a pass over the graph do something else."""
    broken = Pipeline([replace(p, run=run) if p.name == name else p for p in pipelines.GRAPH], pipelines.GRAPH.given)
    monkeypatch.setattr(pipelines, "GRAPH", broken)
    monkeypatch.setattr(pass_registry, "GRAPH", broken)


def crash(graph):
    raise KeyError("planted")


def malform(graph: Graph) -> Graph:
    """The first output gets a type that its op does not have."""
    wrong = copy.copy(graph.outputs[0])
    object.__setattr__(wrong, "type", TensorType(wrong.tensor.dtype, (7,)))
    return replace(graph, outputs=(wrong,))


def build(**options):
    x = gw.placeholder("x", "float32", ("N", 3))
    return gw.function([x], gw.sum(gw.tanh(x) * 2, axis=1), name="layer", **options)


def replayed(error, capsys):
    """What the message's command says; it ends with the message."""
    _, found, command = str(error).partition("replay it with: graphwright ")
    assert found and error.reproducer in command
    assert cli.main(shlex.split(command)) == 2
    return capsys.readouterr().err


def test_a_pass_that_raises_is_named_and_replayed(monkeypatch, capsys, tmp_path):
    plant(monkeypatch, "cse", crash)
    with pytest.raises(gw.CompileError, match="pass 'cse' failed: KeyError: 'planted'") as caught:
        build()
    assert caught.value.reproducer.startswith(str(tmp_path))
    with open(caught.value.reproducer) as file:
        assert file.read().startswith("graphwright.graph v1\nfunc @layer(%x: f32[N, 3])")
    with pytest.raises(KeyError):  # opt shows it raw, with its traceback
        replayed(caught.value, capsys)


def test_a_malformed_ir_is_named_and_replayed(monkeypatch, capsys):
    monkeypatch.setenv("GRAPHWRIGHT_VERIFY", "1")
    plant(monkeypatch, "simplify", malform)
    with pytest.raises(gw.VerifyError, match="pass 'simplify' is malformed or left a malformed IR") as caught:
        build()
    assert "pass 'simplify'" in replayed(caught.value, capsys)


def test_a_dump_folder_takes_the_file(monkeypatch, tmp_path):
    plant(monkeypatch, "cse", crash)
    with pytest.raises(gw.CompileError) as caught:
        build(dump=tmp_path / "dumps")
    assert caught.value.reproducer == str(tmp_path / "dumps" / "layer-cse.gwir")


def test_a_kernel_pass_is_named_once(monkeypatch):
    monkeypatch.setattr(pipelines, "schedule_cpu", lambda kernel, *_: crash(kernel))
    with pytest.raises(gw.CompileError, match="pass 'schedule' failed: KeyError") as caught:
        build()
    assert str(caught.value).count("failed:") == 1
    with open(caught.value.reproducer) as file:
        assert file.read().startswith("graphwright.loops v1")


def test_a_module_that_llvm_refuses(monkeypatch, capsys):
    from graphwright.compiler.driver import CpuLowered

    monkeypatch.setattr(CpuLowered, "modules", lambda self: iter(["define nonsense"]))
    with pytest.raises(gw.CompileError, match="LLVM refuses") as caught:
        build()
    with open(caught.value.reproducer) as file:
        assert file.read().startswith("graphwright.graph v1")
    assert "LLVM refuses" in replayed(caught.value, capsys)


def test_mistakes_of_the_user_have_no_reproducer(tmp_path, registry):
    op = gw.custom_op("refused_kernel", lambda x: (x.dtype, x.shape), lambda out, x: print(out))
    x = gw.placeholder("x", "float32", (3,))
    with pytest.raises(gw.CompileError) as caught:
        gw.function([x], op(x))
    assert caught.value.reproducer is None and not list(tmp_path.glob("*.gwir"))
