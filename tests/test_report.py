"""Reports: the data they hold, that the page needs nothing else, and that a browser shows it."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

import graphwright as gw
from graphwright.errors import GraphError
from graphwright.frontends import cli, nn
from graphwright.frontends.report import artifact_subject, report_data, subject_of
from graphwright.frontends.report.data import fusions_of_calls
from graphwright.frontends.report.history import flatten, trace
from graphwright.frontends.report.page import embedded, render

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
REQUESTS = re.compile(r"\bfetch\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon|importScripts|\bimport\(")


@pytest.fixture(scope="module")
def train():
    """The training step of a small LeNet."""
    rng = np.random.default_rng(0)
    x = gw.placeholder("x", "float32", ("N", 1, 8, 8))
    y = gw.placeholder("y", "int64", ("N",))

    def variable(name, *shape):
        return gw.Variable(rng.standard_normal(shape).astype(np.float32), name=name)

    c, b, w = variable("c", 2, 1, 3, 3), variable("b", 2), variable("w", 18, 4)
    h = nn.max_pool2d(nn.tanh(nn.conv2d(x, c, b)), 2)
    loss = nn.cross_entropy(gw.reshape(h, (-1, 18)) @ w, y)
    updates = {}
    for p, g in zip((c, b, w), gw.grad(loss, [c, b, w])):
        v = gw.Variable(np.zeros(p.value.shape, np.float32), name=f"v_{p.name}")
        updates[v] = 0.9 * v + g
        updates[p] = p - 0.05 * updates[v]
    return gw.function([x, y], loss, updates=updates, name="train")


@pytest.fixture(scope="module")
def data(train):
    return report_data(subject_of(train))


@pytest.fixture(scope="module")
def page(data):
    return render(data)


@pytest.fixture
def small():
    x = gw.placeholder("x", "float32", ("N", 3))
    W = gw.Variable(np.ones((3, 2), np.float32), name="W")
    y = gw.tanh(x @ W)
    return gw.function([x], y * 1.0 + 0.0, updates={W: W * 0.5}, name="small")


# --- the data ------------------------------------------------------------------------------------


def test_the_data_is_json(data):
    assert json.loads(json.dumps(data)) is not None
    assert data["version"] == 1
    assert data["signature"].startswith("train(x: f32[N, 1, 8, 8], y: i64[N])")


def test_stages_are_the_graph_after_each_pass(data, train):
    from graphwright.passes.pipelines import GRAPH

    assert [s["name"] for s in data["stages"]] == ["as written", *(p.name for p in GRAPH)]
    for stage in data["stages"]:
        known = {n for n, _, _ in stage["nodes"]}
        assert all(o in known for _, _, operands in stage["nodes"] for o in operands if isinstance(o, int))
        assert set(map(int, stage["marks"])) <= known
        assert known.isdisjoint(stage["gone"])


def test_stages_differ_by_what_is_marked(data):
    for before, after in zip(data["stages"], data["stages"][1:]):
        old, new = ({n for n, _, _ in s["nodes"]} for s in (before, after))
        assert {int(n) for n, mark in after["marks"].items() if mark == "new"} == new - old
        assert set(after["gone"]) == old - new


def test_kept_ops_read_the_same(data):
    for before, after in zip(data["stages"], data["stages"][1:]):
        old = {n: operands for n, _, operands in before["nodes"]}
        for n, _, operands in after["nodes"]:
            if str(n) not in {str(m) for m in after["marks"]}:
                assert operands == old[n]


def test_every_kernel_has_ops_lines_and_code(data, train):
    program = train.compiled.lowered.program
    assert [k["name"] for k in data["kernels"]] == [k.name for k in program.kernels]
    for kernel in data["kernels"]:
        assert set(kernel["code"]) == {"loops", "llvm", "asm"}
        assert f"kernel @{kernel['name']}(" in kernel["code"]["loops"]
        assert re.search(rf"^define .*@{kernel['name']}\(", kernel["code"]["llvm"], re.MULTILINE)
        assert re.search(rf"^\"?_?{kernel['name']}\"?:", kernel["code"]["asm"], re.MULTILINE)
    members = [n for s in data["steps"] for n in s["ops"]]
    assert all(s["ops"] for s in data["steps"])
    assert len(members) == len(set(members))
    assert all(data["ops"][n]["step"] is not None for n in members)


def test_calls_are_matched_to_their_own_fusions(train):
    lowered = train.compiled.lowered
    found = fusions_of_calls(lowered.optimized, lowered.program, lowered.regions)
    assert None not in found
    for step, fusion in zip(lowered.program.calls, found):
        assert lowered.regions[step.kernel.name] is fusion.regions[0]
    assert found == fusions_of_calls(lowered.optimized, lowered.program, {}), "without regions, names and values decide"


def test_formulas_give_the_planned_memory(data, train):
    from graphwright.runtime.signature import compile_formula

    program = train.compiled.lowered.program
    for n in (0, 1, 5, 64):
        def value(item, n=n):
            return compile_formula(item["tree"], ["N"])([n])

        arena = value(data["memory"]["arena"])
        assert arena == train.memory(N=n)
        for block in data["memory"]["blocks"]:
            assert 0 <= value(block["offset"]) <= value(block["offset"]) + value(block["size"]) <= arena
            assert 0 <= block["lives"][0] <= block["lives"][1] < len(program.calls)


def test_source_lines_are_quoted(small):
    data = report_data(subject_of(small))
    quoted = [text for lines in data["sources"].values() for text in lines.values()]
    assert any("gw.tanh(x @ W)" in text for text in quoted)
    assert all("/" not in loc["file"] for loc in data["locs"]), "no paths of this machine"


def test_followed_values():
    x = gw.placeholder("x", "float32", (3,))
    y = gw.exp(x)
    first, second = (
        flatten(gw.function([x], gw.tanh(f(y)), target="interpreter").graph)[0] for f in (gw.cos, gw.sin)
    )
    assert trace([first, second]) == 5
    assert [(n.value.op.name, n.identity, n.mark) for n in first] == [
        ("input", 0, ""), ("exp", 1, ""), ("cos", 2, ""), ("tanh", 3, ""),
    ]
    assert [(n.value.op.name, n.identity, n.mark) for n in second] == [
        ("input", 0, ""), ("exp", 1, ""), ("sin", 4, "new"), ("tanh", 3, "rewired"),
    ]


def test_dimensions_and_profiles_are_checked(small):
    subject = subject_of(small)
    assert report_data(subject, dims={"N": 7})["dims"] == {"N": 7}
    kernel = subject.program.kernels[0].name
    rows = report_data(subject, profile=[{"kernel": kernel, "seconds": 1e-3, "flops": None}])["profile"]
    assert rows == [{"kernel": kernel, "seconds": 1e-3}]
    with pytest.raises(GraphError, match="no dimension 'M'; it has N"):
        report_data(subject, dims={"M": 7})
    with pytest.raises(GraphError, match="non-negative"):
        report_data(subject, dims={"N": -1})
    with pytest.raises(GraphError, match="kernel 'nothing'"):
        report_data(subject, profile=[{"kernel": "nothing", "seconds": 1.0}])
    with pytest.raises(GraphError, match="'seconds'"):
        report_data(subject, profile=[{"kernel": kernel}])


def test_interpreted_and_plain_functions_have_reports(tmp_path):
    x = gw.placeholder("x", "float32", (3,))
    for name, options in (("interpreted", {"target": "interpreter"}), ("plain", {"optimize": False})):
        f = gw.function([x], gw.exp(x) + 1, name=name, **options)
        f.report(tmp_path / f"{name}.html")
        assert (tmp_path / f"{name}.html").stat().st_size > 100_000


# --- the page ------------------------------------------------------------------------------------


class Elements(html.parser.HTMLParser):
    """The elements of a page, and the text of its scripts and styles."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.found, self.texts, self.open = [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.open = f"{tag}:{dict(attrs).get('type', '')}"

    def handle_data(self, text):
        self.texts[self.open] = self.texts.get(self.open, "") + text

    def handle_endtag(self, tag):
        self.open = None


def held(path):
    """The data that a page holds."""
    return json.loads(Elements(path.read_text(encoding="utf-8")).texts["script:application/json"])


def test_the_page_asks_for_nothing(page):
    elements = Elements(page)
    assert not {t for t, _ in elements.found} & {"link", "img", "iframe", "object", "embed", "base", "audio", "video"}
    assert not [a for _, a in elements.found if set(a) & {"src", "href", "action", "srcset", "style"}]
    assert not [a for _, attributes in elements.found for a in attributes if a.startswith("on")], "no inline handlers"
    assert not re.search(r"@import|url\(", elements.texts["style:"])
    policy = next(a["content"] for t, a in elements.found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    program = elements.texts["script:"]
    assert not re.search(r"\beval\(|new Function|sourceMappingURL", program)
    assert not REQUESTS.search(program)
    assert {u for u in re.findall(r"https?://[\w./]+", program) if "w3.org" not in u and "d3js.org" not in u} == set()


def test_the_policy_names_what_the_page_holds(page):
    import base64
    import hashlib

    def digest(text):
        return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    elements = Elements(page)
    policy = next(a["content"] for t, a in elements.found if a.get("http-equiv") == "Content-Security-Policy")
    assert digest(elements.texts["script:"]) in policy
    assert digest(elements.texts["style:"]) in policy


def test_the_page_holds_its_data(page, data):
    assert json.loads(Elements(page).texts["script:application/json"]) == json.loads(json.dumps(data))


def test_data_cannot_end_its_element(data):
    hostile = {**data, "note": "</script><script>alert(1)</script><!-- <script \u2028 &amp; {{data}}"}
    assert "<" not in embedded(hostile)
    elements = Elements(render(hostile))
    assert sum(tag == "script" for tag, _ in elements.found) == 2
    assert json.loads(elements.texts["script:application/json"])["note"] == hostile["note"]
    title = render({**data, "name": "<b>&"})
    assert "<title>&lt;b&gt;&amp; · Graphwright</title>" in title


def test_the_page_names_its_libraries_licences(page):
    for words in ("d3-zoom 3", "dagre 3", "Mike Bostock", "Chris Pettitt", "Permission is hereby granted"):
        assert words in page


def test_size(page):
    assert len(page.encode()) < 3_000_000


# --- the command ---------------------------------------------------------------------------------


def test_command_on_a_script(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.py").write_text(
        "import graphwright as gw\n"
        "x = gw.placeholder('x', 'float32', ('N',))\n"
        "gw.function([x], gw.exp(x), name='first')\n"
        "gw.function([x], gw.sin(x), name='second')\n"
    )
    assert cli.main(["report", "two.py", "--dim", "N=9"]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("first.html: ")
    assert held(tmp_path / "second.html")["dims"] == {"N": 9}
    assert cli.main(["report", "two.py", "-o", "one.html"]) == 2
    assert "choose one with --function" in capsys.readouterr().err
    assert cli.main(["report", "two.py", "-o", "one.html", "--function", "first"]) == 0
    assert cli.main(["report", "two.py", "--dim", "N"]) == 2


def test_command_on_an_artifact(tmp_path, small, capsys):
    gw.export(tmp_path / "m.gwa", {"small": small})
    out = tmp_path / "m.html"
    assert cli.main(["report", str(tmp_path / "m.gwa"), "-o", str(out)]) == 0
    data = held(out)
    assert [s["name"] for s in data["stages"]] == ["as written", "optimized"]
    assert all(s["ops"] for s in data["steps"] if s["reason"] != "copy")
    assert all(set(k["code"]) == {"loops"} for k in data["kernels"])


def test_an_artifacts_texts_give_the_calls(train):
    stages = {s: train.ir(s) for s in ("graph", "optimized", "program")}
    data = report_data(artifact_subject("train", stages))
    assert all(s["ops"] for s in data["steps"])


# --- a browser -----------------------------------------------------------------------------------

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
)
browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")


def shown(path, profile, fragment=""):
    """The page's elements after its program has run, and what the browser complained about."""
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", "--dump-dom", f"{path.as_uri()}#{fragment}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, console


@browser
def test_a_browser_shows_every_kernel_with_its_line(train, tmp_path):
    path = tmp_path / "train.html"
    train.report(path)
    dom, console = shown(path, tmp_path / "profile", "view=kernels")
    assert console == []
    milliseconds = re.search(r'data-ready="(\d+)"', dom)
    assert milliseconds and int(milliseconds[1]) < 10_000  # the machine may be loaded
    drawn = set(re.findall(r'data-key="k:(\d+)"', dom))
    steps = train.compiled.lowered.program.calls
    assert drawn == {str(k) for k in range(len(steps))}
    table = dom[dom.index('id="kernels"') :]
    assert sum(bool(step.locs) for step in steps) >= len(steps) - 1
    for step in steps:
        assert f">{step.kernel.name}</button>" in table
        assert all(f"test_report.py:{loc.line}" in table for loc in step.locs)


@browser
@pytest.mark.parametrize("fragment", [
    "stage=1&group=none", "stage=0&group=line&select=op:3", "open=k:0,k:1,k:2&select=k:1&code=asm",
    "view=memory&select=k:2&theme=dark", "select=l:1",
])
def test_a_browser_shows_each_view(page, tmp_path, fragment):
    path = tmp_path / "train.html"
    path.write_text(page, encoding="utf-8")
    dom, console = shown(path, tmp_path / "profile", fragment)
    assert console == []
    assert "data-ready=" in dom
    if "view=memory" in fragment:
        assert 'class="block' in dom
