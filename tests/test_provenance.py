"""Provenance: from machine kernels to loops, graph ops and source lines, and back; in functions and artifacts."""

from __future__ import annotations

import copy
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

import graphwright as gw
from graphwright.errors import ArtifactError, GraphwrightError
from graphwright.frontends import cli
from graphwright.frontends.explain import explain
from graphwright.ir.graph import MAX_LOCS, Loc, make, source_location
from graphwright.ir.op import OPS
from graphwright.ir.parser import parse_graph
from graphwright.runtime import provenance
from graphwright.runtime.artifact import read

DOCUMENT = Path(__file__).parent.parent / "docs" / "provenance.md"
HERE = Path(__file__).name


def line_of(text: str) -> int:
    """The number of the one line of this file that holds a text (and not this call)."""
    lines = Path(__file__).read_text().splitlines()
    (number,) = [k for k, line in enumerate(lines, 1) if text in line and "line_of" not in line]
    return number


def model():
    x = gw.placeholder("x", "float32", ("N", 64))
    W = gw.Variable(np.ones((64, 32), np.float32), name="W")
    hidden = gw.tanh(x @ W)  # forward
    loss = gw.mean(hidden * hidden)  # the loss
    step = W - 0.1 * gw.grad(loss, W)  # the step
    return gw.function([x], loss, updates={W: step}, name="train")


@pytest.fixture(scope="module")
def train():
    return model()


@pytest.fixture
def artifact(tmp_path, train):
    gw.export(tmp_path / "m.gwa", {"fit": train, "again": train})
    return str(tmp_path / "m.gwa")


# --- the record ----------------------------------------------------------------------------------


def test_every_op_of_a_kernel_knows_its_line(train):
    record = provenance.check(train.provenance())
    ops = [(k["name"], op) for k in record["kernels"] for op in k["ops"]]
    for kernel, op in ops:
        assert op["locations"], f"{op['op']} of {kernel} has no line"
        assert all(Path(loc["file"]).name == HERE for loc in op["locations"])
    (tanh,) = [op for _, op in ops if op["op"] == "tanh"]
    assert tanh["type"] == "f32[N, 32]" and tanh["part"] == "epilogue" and tanh["result"]
    assert tanh["locations"] == [{"file": __file__, "line": line_of("# forward"), "role": "", "of": ""}]


def test_a_gradient_names_its_forward_op(train):
    ops = [op for k in train.provenance()["kernels"] for op in k["ops"]]
    gradients = [loc for op in ops for loc in op["locations"] if loc["role"]]
    assert {loc["role"] for loc in gradients} == {"grad"}
    assert {(loc["of"], loc["line"]) for loc in gradients} >= {
        ("dot", line_of("# forward")), ("tanh", line_of("# forward")), ("mul", line_of("# the loss")),
    }
    (weights,) = [op for op in ops if op["op"] == "dot" and op["type"] == "f32[64, 32]"]
    assert weights["part"] == "contraction"
    assert weights["locations"] == [{"file": __file__, "line": line_of("# forward"), "role": "grad", "of": "dot"}]


def test_a_value_that_two_lines_make_knows_both(train):
    # the square of tanh is a part of the loss, and of tanh's derivative
    square = [
        op for k in train.provenance()["kernels"] for op in k["ops"]
        if op["op"] == "mul" and op["type"] == "f32[N, 32]" and len(op["locations"]) > 1
    ]  # fmt: skip
    assert [(loc["line"], loc["role"], loc["of"]) for loc in square[0]["locations"]] == [
        (line_of("# the loss"), "", ""), (line_of("# forward"), "grad", "tanh"),
    ]


def test_code_lies_where_the_record_says(train):
    record, image = train.provenance(), train.compiled.image
    places = [p for k in record["kernels"] for p in k["code"]] + record["other"]
    ranges = sorted((p["offset"], p["offset"] + p["size"]) for p in places)
    assert all(0 <= a < b <= len(image.code) for a, b in ranges)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ranges))  # none overlap
    assert len(places) == len(image.functions)
    for kernel in record["kernels"]:
        names = {p["function"] for p in kernel["code"]}
        assert kernel["name"] in names
        assert all(name.partition(".")[0] == kernel["name"] for name in names)
    assert "train" in {p["function"] for p in record["other"]}
    (dot,) = [k for k in record["kernels"] if k["name"].startswith("dot") and "tanh" in k["name"]]
    assert any(".body" in p["function"] for p in dot["code"])  # what the threads run


def test_loops_begin_at_the_line_that_is_named(train):
    text = train.ir("loops").splitlines()
    for kernel in train.provenance()["kernels"]:
        assert text[kernel["loops"] - 1] == "graphwright.loops v1"
        assert text[kernel["loops"]].startswith(f"kernel @{kernel['name']}(")


def test_lines_lead_back(train):
    record = train.provenance()
    kernels = {k["name"]: k for k in record["kernels"]}
    forward = {(k["name"], i) for k in record["kernels"] for i, op in enumerate(k["ops"]) for loc in op["locations"]
               if loc["line"] == line_of("# forward")}
    (row,) = [r for r in record["lines"] if r["line"] == line_of("# forward")]
    assert {(op["kernel"], op["op"]) for op in row["ops"]} == forward
    for kernel, ops in provenance.at_line(record, HERE, line_of("# the step")):
        assert all(op in kernels[kernel["name"]]["ops"] for op in ops)
    assert provenance.at_line(record, f"tests/{HERE}", line_of("# the step"))
    assert provenance.at_line(record, f"x{HERE}", line_of("# the step")) == []


def test_the_record_survives_the_cache(train):
    again = model()  # the same graph: its code comes from the cache
    assert again.compiled.image.functions == train.compiled.image.functions
    assert again.provenance()["kernels"] == train.provenance()["kernels"]


def test_a_convolutional_net_is_known_to_the_last_op():
    x, y = gw.placeholder("x", "float32", ("N", 1, 12, 12)), gw.placeholder("y", "int64", ("N",))
    shapes = {"k1": (4, 1, 3, 3), "b1": (4,), "k2": (6, 4, 3, 3), "w": (54, 10), "b": (10,)}
    p = {name: gw.Variable(np.zeros(shape, np.float32), name=name) for name, shape in shapes.items()}
    h = gw.nn.max_pool2d(gw.nn.relu(gw.nn.conv2d(x, p["k1"], p["b1"], padding=1)), 2)
    h = gw.nn.max_pool2d(gw.tanh(gw.nn.conv2d(h, p["k2"], padding=1)), 2)
    loss = gw.nn.cross_entropy(gw.reshape(h, (-1, 54)) @ p["w"] + p["b"], y)
    gradients = gw.grad(loss, list(p.values()))
    f = gw.function([x, y], loss, updates={v: v - 0.1 * g for v, g in zip(p.values(), gradients)}, name="lenet")
    record = provenance.check(f.provenance())
    assert len(record["kernels"]) > 10
    unknown = [(k["name"], op["op"]) for k in record["kernels"] for op in k["ops"] if not op["locations"]]
    assert not unknown


def test_plain_code_has_a_record_too():
    x = gw.placeholder("x", "float32", ("N",))
    f = gw.function([x], [gw.exp(x), x], optimize=False, name="plain")
    record = provenance.check(f.provenance())
    assert [k["ops"][0]["op"] for k in record["kernels"]] == ["exp", "stop_gradient"]
    assert [k["reason"] for k in record["kernels"]] == ["map", "copy"]


# --- lines of values -----------------------------------------------------------------------------


def test_lines_are_kept_when_values_are_made_again():
    x = gw.placeholder("x", "float32", (3,))._value
    with source_location(Loc("a.py", 1)):
        first = OPS["exp"](x)
    with source_location(Loc("b.py", 2)):
        assert OPS["exp"](x) is first
    assert first.loc == Loc("a.py", 1)
    assert first.locs == (Loc("a.py", 1), Loc("b.py", 2))
    y = gw.placeholder("y", "float32", (3,))._value
    assert first.with_operands([y]).locs == first.locs
    for k in range(100):
        make(first.op, first.operands, loc=Loc("c.py", k))
    assert len(first.locs) == MAX_LOCS


def test_values_without_operands_or_lines_collect_none():
    with source_location(Loc("a.py", 1)):
        number = OPS["full"](shape=(2,), value=7.125, dtype=gw.float32)
    with source_location(Loc("b.py", 2)):
        assert OPS["full"](shape=(2,), value=7.125, dtype=gw.float32) is number
    assert number.locs == (Loc("a.py", 1),)
    x = gw.placeholder("x", "float32", (3,))._value
    bare = OPS["exp"](x)
    with source_location(Loc("b.py", 2)):
        assert OPS["exp"](x) is bare and bare.loc is None


def test_texts_name_the_forward_op():
    text = train_text()
    assert "grad tanh)" in text
    assert str(parse_graph(text)) == text


def train_text() -> str:
    return model().ir("graph")


# --- artifacts -----------------------------------------------------------------------------------


def test_artifacts_hold_the_record(artifact, train):
    loaded = gw.load(artifact)
    record = loaded.provenance("fit")
    manifest, members = read(artifact)
    (target,) = manifest["targets"]
    code = members[f"code/{target}.bin"]
    base = manifest["targets"][target]["entries"]["fit"] - train.compiled.image.entries["train"]
    own = train.provenance()
    for mine, theirs in zip(own["kernels"], record["kernels"], strict=True):
        for a, b in zip(mine["code"], theirs["code"], strict=True):
            assert (b["target"], b["function"], b["offset"], b["size"]) == (
                target, a["function"], a["offset"] + base, a["size"],
            )
            piece = bytes(code[b["offset"] : b["offset"] + b["size"]])
            assert piece == train.compiled.image.code[a["offset"] : a["offset"] + a["size"]]
    assert {row["file"] for row in record["lines"]} == {HERE}  # nothing of the folders it was made in
    assert manifest["entries"]["fit"]["provenance"] == provenance.VERSION
    with pytest.raises(KeyError):
        loaded.provenance("other")


def test_a_damaged_record_is_refused(artifact, tmp_path):
    data = bytearray(Path(artifact).read_bytes())
    at = data.index(b'"graphwright.provenance"')
    data[at + 1] ^= 1
    (tmp_path / "bad.gwa").write_bytes(data)
    with pytest.raises(ArtifactError):
        gw.load(tmp_path / "bad.gwa")


@pytest.mark.parametrize("change, message", [
    (lambda r: r.update(version=2), "version 2; this release reads version 1"),
    (lambda r: r.update(version=True), "version True"),
    (lambda r: r.update(format="x"), "not a record"),
    (lambda r: r.pop("lines"), "missing or unknown fields"),
    (lambda r: r["kernels"][0].update(more=1), r"kernels\[0\] has missing or unknown"),
    (lambda r: r["kernels"][0].update(calls="1"), r"kernels\[0\].calls is no int"),
    (lambda r: r["kernels"][0]["ops"][0].update(result=1), "result is no bool"),
    (lambda r: r.update(other={}), "other is no list"),
    (lambda r: r["lines"][0]["ops"][0].update(op=99), "names op 99 of"),
])
def test_records_are_checked(train, change, message):
    record = copy.deepcopy(train.provenance())
    change(record)
    with pytest.raises(ValueError, match=message):
        provenance.check(record)
    with pytest.raises(ArtifactError, match="damaged"):
        provenance.parse(json.dumps(record).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"[" * 100_000, b"\xff"])
def test_what_is_no_record_is_refused(data):
    with pytest.raises(ArtifactError, match="damaged"):
        provenance.parse(data)


# --- explain -------------------------------------------------------------------------------------


def test_explain_a_kernel(artifact, capsys):
    assert cli.main(["explain", artifact, "--kernel", "dot_tanh", "--entry", "fit"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "kernel dot_tanh of fit"
    assert any(re.match(r"  code   \S+ 0x\w+\.\.0x\w+  dot_tanh\.body\d+, \d+ bytes", line) for line in out)
    tanh = rf"    tanh : f32\[N, 32\] +epilogue, result +{HERE}:{line_of('# forward')}$"
    assert any(re.match(tanh, line) for line in out)


def test_explain_a_line(artifact):
    text = "\n".join(explain(artifact, "fit", line=f"{HERE}:{line_of('# forward')}"))
    assert "dot_tanh" in text and f"{HERE}:{line_of('# forward')} (gradient of tanh)" in text
    assert "sum_" not in text or "sum" in text.splitlines()[0]


def test_explain_all(artifact):
    text = list(explain(artifact))
    assert [line for line in text if line.endswith("kernels")] == [
        f"{name}: {sum(line.startswith('  ') for line in text) // 2} kernels" for name in ("again", "fit")
    ]


def test_explain_says_what_there_is(artifact, tmp_path):
    for arguments, message in [
        ({"kernel": "conv"}, "no kernel 'conv'; it has dot_tanh"),
        ({"line": f"{HERE}:1"}, f"no kernel comes from {HERE}:1; kernels come from {HERE}:"),
        ({"line": "12"}, "write FILE.py:LINE"),
        ({"entry": "predict"}, "no entry point 'predict'; it has again, fit"),
    ]:
        with pytest.raises(GraphwrightError, match=re.escape(message)):
            list(explain(artifact, **arguments))


# --- the schema ----------------------------------------------------------------------------------


def described(schema) -> object:
    if isinstance(schema, dict):
        return {name: described(inner) for name, inner in schema.items()}
    return [described(schema[0])] if isinstance(schema, list) else schema.__name__


def test_the_documented_schema_is_the_one_in_force():
    (block,) = re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert json.loads(block) == described(provenance.SCHEMA)
    assert f"version {provenance.VERSION}" in DOCUMENT.read_text()


def test_version_1_stays_as_it_is():
    """A change of this text needs a new version, and code that still reads the old one."""
    text = json.dumps(described(provenance.SCHEMA))
    assert (provenance.FORMAT, provenance.VERSION) == ("graphwright.provenance", 1)
    assert text == (
        '{"format": "str", "version": "int", "function": "str", "kernels": [{"name": "str", "reason": "str", '
        '"calls": "int", "loops": "int", "ops": [{"op": "str", "type": "str", "part": "str", "result": "bool", '
        '"locations": [{"file": "str", "line": "int", "role": "str", "of": "str"}]}], "code": [{"target": "str", '
        '"function": "str", "offset": "int", "size": "int"}]}], "other": [{"target": "str", "function": "str", '
        '"offset": "int", "size": "int"}], "lines": [{"file": "str", "line": "int", "ops": [{"kernel": "str", '
        '"op": "int"}]}]}'
    )
