"""Modules: names, state dicts, modes, buffers, summaries, initializers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphwright as gw
from graphwright import nn
from graphwright.errors import ArtifactError, GraphError, UpdateError
from graphwright.frontends.nn import init


class Block(nn.Module):
    def __init__(self, size: int) -> None:
        self.dense = nn.Linear(size, size, rng=0)
        self.norm = nn.BatchNorm1d(size)

    def forward(self, x: gw.Tensor) -> gw.Tensor:
        return gw.nn.relu(self.norm(self.dense(x)))


class Net(nn.Module):
    def __init__(self) -> None:
        self.blocks = [Block(3), Block(3)]
        self.heads = {"a": nn.Linear(3, 2, rng=1), "b": nn.Linear(3, 1, bias=False, rng=2)}
        self.scale = gw.Variable(np.float32(2), name="any")
        self.tied = self.heads["a"]

    def forward(self, x: gw.Tensor) -> list[gw.Tensor]:
        for block in self.blocks:
            x = block(x)
        return [head(x) * self.scale for head in self.heads.values()]


def _x() -> gw.Tensor:
    return gw.placeholder("x", "float32", ("N", 3))


def test_variables_are_found_wherever_they_stand() -> None:
    net = Net()
    assert [name for name, _ in net.named_parameters()] == [
        "blocks.0.dense.weight", "blocks.0.dense.bias", "blocks.0.norm.weight", "blocks.0.norm.bias",
        "blocks.1.dense.weight", "blocks.1.dense.bias", "blocks.1.norm.weight", "blocks.1.norm.bias",
        "heads.a.weight", "heads.a.bias", "heads.b.weight", "scale",
    ]  # fmt: skip
    assert [name for name, _ in net.named_buffers()][:3] == [
        f"blocks.0.norm.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")
    ]
    assert len(net.parameters()) == 12
    assert [name for name, _ in net.named_modules()][:3] == ["", "blocks.0", "blocks.0.dense"]


def test_variables_are_named_after_their_places_at_the_first_call() -> None:
    net = Net().named("left")
    outputs = net(_x())
    assert [p.name for p in net.parameters()][-4:] == [
        "left_heads_a_weight", "left_heads_a_bias", "left_heads_b_weight", "left_scale",
    ]  # fmt: skip
    assert "state(%left_blocks_0_dense_weight: f32[3, 3]" in gw.function([_x()], outputs).ir("graph")
    part = nn.Sequential(net.blocks[0], nn.Linear(3, 1))
    part(_x())
    assert part[0].dense.weight.name == "left_blocks_0_dense_weight"  # compiled with it: it keeps the name
    assert part[1].weight.name == "sequential_1_weight"


def test_calls_share_the_parameters() -> None:
    layer = nn.Linear(3, 3)
    x = _x()
    assert layer(x)._value is layer(x)._value
    f = gw.function([x], layer(layer(x)))
    assert len(f.cells) == 2


def test_modes_come_from_the_nearest() -> None:
    seen: list[bool] = []

    class Probe(nn.Module):
        def forward(self, x: gw.Tensor) -> gw.Tensor:
            seen.append(self.training)
            return x

    class Outer(nn.Module):
        def __init__(self) -> None:
            self.inner = Probe()

        def forward(self, x: gw.Tensor) -> gw.Tensor:
            return self.inner(x)

    outer, x = Outer(), _x()
    outer(x), outer(x, training=True)
    with nn.training():
        outer(x), outer(x, training=False)
        with nn.training(False):
            outer(x)
    assert seen == [False, True, True, False, False]
    seen.clear()
    outer.inner.eval()
    outer(x, training=True)
    outer.inner.train(None)
    outer.train()(x)
    outer(x, training=False)
    assert seen == [False, True, False]


def test_buffers_reach_the_updates_of_a_function() -> None:
    norm, x = nn.BatchNorm(3, momentum=0.5), _x()
    with nn.training() as updates:
        y = norm(x)
    assert set(updates) == set(norm.updates()) == {b for _, b in norm.named_buffers()}
    train, predict = gw.function([x], y, updates=updates), gw.function([x], norm(x))
    data = np.random.default_rng(0).normal(2, 3, (50, 3)).astype(np.float32)
    for _ in range(12):
        train(data)
    np.testing.assert_allclose(norm.running_mean.value, data.mean(0), rtol=2e-3)
    np.testing.assert_allclose(norm.running_var.value, data.var(0, ddof=1), rtol=2e-3)
    assert norm.num_batches_tracked.value == 12
    np.testing.assert_allclose(predict(data), (data - data.mean(0)) / data.std(0, ddof=1), atol=5e-3)


def test_without_running_statistics_the_batch_serves() -> None:
    norm, x = nn.BatchNorm(3, track_running_stats=False, affine=False), _x()
    data = np.random.default_rng(0).normal(2, 3, (20, 3)).astype(np.float32)
    np.testing.assert_allclose(gw.function([x], norm(x))(data), (data - data.mean(0)) / data.std(0), atol=1e-4)
    assert not norm.state_dict() and not norm.updates()


def test_states_are_saved_and_loaded(tmp_path: Path) -> None:
    first, second = Net(), Net()
    for p in first.parameters():
        p.assign(p.value + 1)
    first.save(tmp_path / "net.safetensors")
    second.load(tmp_path / "net.safetensors")
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert np.array_equal(a, b), name
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]
    (tmp_path / "net.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ArtifactError, match=r"net.safetensors: safetensors: "):
        second.load(tmp_path / "net.safetensors")
    with pytest.raises(FileNotFoundError):
        first.save(tmp_path / "nowhere" / "net.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("scale"), "'scale' is missing"),
        (lambda s: s.update(more=np.zeros(2)), "'more' is unexpected"),
        (lambda s: s.update(scale=np.zeros(2, np.float32)), r"'scale' is float32\[2\], the module has float32\[\]"),
        (lambda s: s.update(scale=np.float64(1)), r"'scale' is float64\[\], the module has float32\[\]"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, message: str) -> None:
    net = Net()
    state = {name: np.asarray(v + 1, v.dtype) for name, v in net.state_dict().items()}
    before = net.state_dict()
    change(state)
    with pytest.raises(UpdateError, match=message):
        net.load_state_dict(state)
    assert all(np.array_equal(v, before[name]) for name, v in net.state_dict().items())


def test_parts_of_a_state() -> None:
    net = Net()
    net.load_state_dict({"scale": np.float32(5), "other": np.zeros(1)}, strict=False)
    assert net.scale.value == 5


def test_summary_shows_symbolic_shapes_and_counts() -> None:
    net = Net()
    table = net.summary(("N", 3))
    assert table.parameters == 2 * (12 + 6) + 8 + 3 + 1 and table.buffers == 14
    rows = {name: (shape, count) for name, _, shape, count in table.rows}
    assert rows["blocks.0.dense"] == ("[N, 3]", 12) and rows["heads.b"] == ("[N, 1]", 3)
    assert rows["Net"] == ("[N, 2], [N, 1]", 1)
    lines = str(table).splitlines()
    assert lines[0].split() == ["name", "module", "output", "parameters"]
    assert lines[-1] == "48 parameters, 14 elements of buffers"
    kept = nn.LSTM(3, 4, stateful=2)
    assert "[T, 2, 4], [1, 2, 4], [1, 2, 4]" in str(kept.summary(("T", 2, 3)))
    assert not kept.updates()


def test_containers_and_functions() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), gw.nn.relu, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2))
    assert len(net) == 5 and isinstance(net[0], nn.Conv2d) and list(net)[1] is gw.nn.relu
    x = gw.placeholder("x", "float32", ("N", 1, 8, 8))
    assert net(x).shape[1] == 2
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "4.weight", "4.bias"]
    assert repr(net[0]) == "Conv2d(1, 4, (3, 3))" and repr(net[2]) == "MaxPool2d(2)"
    assert repr(nn.Lambda(gw.nn.softmax, axis=0)) == "Lambda(softmax, axis=0)"


@pytest.mark.parametrize("make", [
    nn.Sigmoid, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Softplus, nn.Softmax, lambda: nn.AvgPool1d(2),
    lambda: nn.AdaptiveAvgPool1d(1), lambda: nn.MaxPool1d(3, stride=1),
])  # fmt: skip
def test_functions_as_modules(make) -> None:
    module, x = make(), gw.placeholder("x", "float32", (2, 3, 8))
    functions = {"GELU": "gelu", "SiLU": "silu", "ReLU": "relu", "AvgPool1d": "avg_pool1d", "MaxPool1d": "max_pool1d",
                 "AdaptiveAvgPool1d": "adaptive_avg_pool1d"}
    name = type(module).__name__
    function = getattr(gw.nn, functions.get(name, name.lower()))
    assert module(x)._value is function(x, *module.args, **module.settings)._value


def test_a_module_needs_forward() -> None:
    with pytest.raises(GraphError, match="has no method forward"):
        nn.Module()(_x())
    with pytest.raises(GraphError, match="update works in forward only"):
        nn.Module().update(gw.Variable(1.0), gw.asarray(1.0))


# --- initializers --------------------------------------------------------------------------------

VARIANCES = {
    "glorot_uniform": (init.glorot_uniform(), 2 / (900 + 300)),
    "glorot_normal": (init.glorot_normal(gain=2), 4 * 2 / (900 + 300)),
    "he_uniform": (init.he_uniform(), 2 / 900),
    "he_normal": (init.he_normal("fan_out", gain=1), 1 / 300),
    "he_average": (init.he_normal("fan_avg", gain=init.gain("leaky_relu", 1.0)), 1 / 600),
    "lecun_uniform": (init.lecun_uniform(), 1 / 900),
    "lecun_normal": (init.lecun_normal(), 1 / 900),
    "truncated_normal": (init.truncated_normal(std=3), 9 * 0.7737),
    "uniform": (init.uniform(-1, 1), 1 / 3),
    "normal": (init.normal(0, 2), 4),
}


@pytest.mark.parametrize("name", VARIANCES)
def test_initializers_have_their_variance(name: str) -> None:
    make, variance = VARIANCES[name]
    values = make((100, 300, 3), np.random.default_rng(0))
    assert values.shape == (100, 300, 3)
    assert values.var() == pytest.approx(variance, rel=0.02)
    assert abs(values.mean()) < 0.02 * np.sqrt(variance)
    assert np.array_equal(values, make((100, 300, 3), np.random.default_rng(0)))
    if name == "truncated_normal":
        assert np.abs(values).max() <= 6


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (4, 2, 3)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    q = init.orthogonal(2)(shape, np.random.default_rng(0)).reshape(shape[0], -1)
    q = q if q.shape[0] <= q.shape[1] else q.T
    np.testing.assert_allclose(q @ q.T, 4 * np.eye(len(q)), atol=1e-12)


def test_first_values_are_reproducible() -> None:
    def state(rng: object) -> np.ndarray:
        return nn.Linear(3, 4, rng=rng).state_dict()["weight"]

    assert np.array_equal(state(3), state(np.random.default_rng(3)))
    init.seed(5)
    first = [state(None), state(None)]
    init.seed(5)
    assert np.array_equal([state(None), state(None)], first) and not np.array_equal(*first)
    assert (init.ones()((2,), None) == 1).all() and (init.constant(3)((2,), None) == 3).all()
    bias = nn.LSTM(2, 3).state_dict()["bias_ih_l0"]
    assert bias.tolist() == [0] * 3 + [1] * 3 + [0] * 6
    with pytest.raises(GraphError, match="has no fan"):
        init.he_normal()((3,), np.random.default_rng(0))


def test_buffers_and_kept_states_ship(tmp_path: Path) -> None:
    class Tracker(nn.Module):
        def __init__(self) -> None:
            self.norm = nn.BatchNorm(3)
            self.rnn = nn.LSTM(3, 4, stateful=2, rng=0)

        def forward(self, x: gw.Tensor) -> gw.Tensor:
            return self.rnn(gw.reshape(self.norm(gw.reshape(x, (-1, 3))), x.shape))[0]

    model, x = Tracker(), gw.placeholder("x", "float32", ("T", 2, 3))
    with nn.training() as updates:
        loss = gw.mean(model(x) ** 2)
    updates.update(gw.optim.SGD(0.1).updates(loss, model.parameters()))
    train = gw.function([x], loss, updates=updates, name="train")
    gw.export(tmp_path / "model.gwa", {"train": train})
    shipped = gw.load(tmp_path / "model.gwa")
    rng = np.random.default_rng(0)
    for _ in range(3):
        data = rng.normal(size=(5, 2, 3)).astype(np.float32)
        assert shipped.train(data) == train(data)
    here = {p.name: p.value for p in [*model.parameters(), *(b for _, b in model.named_buffers())]}
    assert set(shipped.variables) == set(here)
    assert all(np.array_equal(value, here[name]) for name, value in dict(shipped.variables).items())
    assert here["norm_num_batches_tracked"] == 3 and (here["rnn_states_c"] != 0).all()
