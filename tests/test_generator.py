"""Keys and generators: what advances, what differs, and that numbers depend on nothing but key and position."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import graphwright as gw
from graphwright import nn
from graphwright.runtime.threads import get_num_threads, set_num_threads

random = gw.random


def run(outputs, inputs=(), *arrays, target="cpu"):
    return gw.function(list(inputs), outputs, target=target)(*arrays)


def distinct(*arrays):
    """Whether no number occurs twice: right for 53 random digits."""
    flat = np.concatenate([np.ravel(a) for a in arrays])
    return len(np.unique(flat)) == flat.size


def u64(rng, shape=(5,)):
    return rng.uniform(shape, dtype="float64")


# --- keys ----------------------------------------------------------------------------------------


def test_a_key_holds_its_seed():
    assert run(random.key(2**32 + 5)).tolist() == [5, 1, 0, 0]
    seed = gw.placeholder("seed", "int64")
    key = gw.function([seed], random.key(seed))
    assert key(7).tolist() == [7, 0, 0, 0]
    assert key(-1).tolist() == [2**32 - 1, 2**32 - 1, 0, 0]


def test_equal_keys_give_equal_numbers_and_others_other_ones():
    key, other = random.key(1), random.key(2)
    a, b, c = run([random.normal(key, (9,)), random.normal(key, (9,)), random.normal(other, (9,))])
    assert (a == b).all() and not (a == c).any()


def test_derived_keys_differ_from_each_other_and_from_what_is_drawn():
    key = random.key(3)
    keys = random.split(key, 50)
    folded = [random.fold_in(key, n) for n in (0, 1, 2**40, 2**64 - 1)]
    words = run([keys, *folded, random.split(keys[0], 50), random.bits(key, (200,))])
    assert len(np.unique(np.concatenate([w.ravel()[:200] for w in words]))) > 400
    draws = run([random.uniform(k, (4,), dtype="float64") for k in (key, keys[0], keys[1], *folded)])
    assert distinct(*draws)


def test_folding_in_a_tensor_is_folding_in_its_value():
    key, n = random.key(3), gw.placeholder("n", "int64")
    assert (run(random.fold_in(key, n), [n], 2**40 + 3) == run(random.fold_in(key, 2**40 + 3))).all()


def test_nested_folds_do_not_meet():
    key = random.key(0)
    pairs = [random.fold_in(random.fold_in(key, a), b) for a in range(4) for b in range(4)]
    assert len({tuple(words) for words in run(pairs)}) == 16


# --- generators ----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["cpu", "interpreter"])
def test_a_generator_advances_once_an_execution(target):
    rng = random.Generator(1)
    f = gw.function([], [u64(rng), u64(rng)], target=target)
    assert distinct(*f(), *f(), *f())
    assert rng.value.tolist() == [1, 0, 3, 0]
    rng.assign(np.array([1, 0, 1, 0], np.uint32))
    again = f()
    rng.assign(np.array([1, 0, 1, 0], np.uint32))
    assert all((a == b).all() for a, b in zip(again, f()))


def test_its_count_has_64_bits():
    rng = random.Generator(0)
    f = gw.function([], u64(rng))
    rng.assign(np.array([0, 0, 2**32 - 1, 6], np.uint32))
    f()
    assert rng.value.tolist() == [0, 0, 0, 7]


def test_what_does_not_draw_does_not_advance():
    rng = random.Generator(1)
    x = gw.placeholder("x", "float32", ("N",))
    gw.function([x], x * 2)(np.ones(3, np.float32))
    assert gw.function([], rng)().tolist() == [1, 0, 0, 0]
    assert rng.value.tolist() == [1, 0, 0, 0]


def test_an_update_of_ones_own_takes_its_place():
    rng = random.Generator(1)
    f = gw.function([], u64(rng), updates={rng: np.zeros(4, np.uint32)})
    f()
    assert rng.value.tolist() == [0, 0, 0, 0]


def test_the_same_program_draws_the_same():
    def program():
        rng = random.Generator(11)
        f = gw.function([], [rng.normal((3,)), rng.gamma(2.0, shape=(3,)), rng.permutation(5)])
        return [*f(), *f()]

    assert all((a == b).all() for a, b in zip(program(), program()))


def test_a_generator_can_be_given_where_a_key_can():
    rng = random.Generator(4)
    keys = gw.function([], [random.split(rng, 2), random.fold_in(rng, 1), rng.key()])
    assert len(np.unique(np.concatenate([k.ravel() for k in (*keys(), *keys())]))) == 32


# --- loops and branches --------------------------------------------------------------------------


def test_each_step_of_a_scan_draws_its_own():
    rng = random.Generator(2)
    T = gw.placeholder("x", "float32", ("T",))
    noise = gw.map(lambda _: u64(rng), T)
    f = gw.function([T], [noise, u64(rng)])
    first, second = f(np.zeros(6, np.float32)), f(np.zeros(9, np.float32))
    assert first[0].shape == (6, 5) and distinct(*first, *second)


@pytest.mark.parametrize("options", [{"checkpoint": 2}, {"reverse": True}, {"unroll": 2}, {"truncate_gradient": 2}])
def test_how_a_loop_is_run_does_not_matter(options):
    x = gw.placeholder("x", "float32", (5,))
    found = []
    for kwargs in ({}, options):
        draw = random.Generator(2).uniform
        noise = gw.scan(lambda c, e, draw=draw: (c, e * 0 + draw(())), 0.0, x, **kwargs)[1]
        found.append(run(noise, [x], np.zeros(5, np.float32)))
    np.testing.assert_array_equal(*found)


def test_steps_of_nested_loops_and_of_branches_in_them():
    rng = random.Generator(2)

    def inner(i, j):
        return gw.cond(j % 2 == 0, lambda: u64(rng, ()), lambda: u64(rng, ()))

    noise = gw.map(lambda i: gw.map(lambda j: inner(i, j), gw.arange(4)), gw.arange(3))
    outer = gw.map(lambda i: gw.map(lambda j: j + 0.0 * u64(rng, ()), gw.arange(2)), gw.arange(3))
    f = gw.function([], [noise, outer])
    assert distinct(f()[0], f()[0])


@pytest.mark.parametrize("limit", [None, 9])
def test_steps_of_a_while_loop(limit):
    rng = random.Generator(2)

    def step(carry):
        i, seen = carry
        return i + 1, gw.where(gw.arange(4) == i, u64(rng, ()), seen)

    start = (0, gw.zeros(4, "float64"))
    seen = gw.while_loop(lambda c: (c[0] < 4) & (u64(rng, ()) < 2), step, start, limit)[1]
    f = gw.function([], seen)
    assert distinct(f(), f())


def test_the_gradient_sees_the_numbers_of_the_result():
    rng = random.Generator(3)
    w = gw.placeholder("w", "float64", ())
    total, masks = gw.scan(
        lambda c, _: ((c + w * (n := rng.normal((), dtype="float64"))), n), gw.asarray(0.0, "float64"), length=6
    )
    slope, found = run([gw.grad(total, w), masks], [w], 2.0)
    np.testing.assert_allclose(slope, found.sum())


# --- state ---------------------------------------------------------------------------------------


def test_two_functions_share_a_generator_from_two_threads():
    """Each execution advances it once: no state is lost, no number is drawn twice."""
    rng = random.Generator(5)
    functions = [gw.function([], u64(rng, (64,))), gw.function([], u64(rng, (64,)) + 1)]
    found = [[], []]

    def work(k):
        for _ in range(200):
            found[k].append(functions[k]())

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert rng.value.tolist() == [5, 0, 400, 0]
    assert distinct(*found[0]) and distinct(*found[1])


def test_an_artifact_goes_on_where_the_generator_stands(tmp_path):
    rng = random.Generator(6, name="rng")
    f = gw.function([], rng.normal((100,)))
    f()
    gw.export(tmp_path / "noise.gwa", {"noise": f})
    loaded = gw.load(tmp_path / "noise.gwa")
    for _ in range(3):
        np.testing.assert_array_equal(f(), loaded.noise())


# --- the same numbers everywhere -----------------------------------------------------------------


DRAWS = {
    "bits": lambda k, n: random.bits(k, (n,)),
    "bits 64": lambda k, n: random.bits(k, (n,), "uint64"),
    "uniform": lambda k, n: random.uniform(k, (n,)),
    "bernoulli": lambda k, n: random.bernoulli(k, (n,), 0.3),
    "integers": lambda k, n: random.integers(k, 10, shape=(n,)),
    "normal": lambda k, n: random.normal(k, (n,)),
    "normal 64": lambda k, n: random.normal(k, (n,), dtype="float64"),
    "gamma": lambda k, n: random.gamma(k, 0.7, shape=(n,), dtype="float64"),
    "poisson": lambda k, n: random.poisson(k, 20.0, (n,)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_numbers_depend_on_position_alone(name):
    """Neither on the threads, nor on how much is drawn; the interpreter agrees, to the rounding of functions."""
    x = gw.placeholder("x", "float32", ("N",))
    f = gw.function([x], DRAWS[name](random.key(8), x.shape[0]))
    whole = f(np.zeros(40_000, np.float32))
    for n in (0, 1, 63, 64, 65, 8192, 8193):
        np.testing.assert_array_equal(f(np.zeros(n, np.float32)), whole[:n])
    threads = get_num_threads()
    try:
        set_num_threads(1)
        np.testing.assert_array_equal(f(np.zeros(40_000, np.float32)), whole)
    finally:
        set_num_threads(threads)
    reference = gw.function([x], DRAWS[name](random.key(8), x.shape[0]), target="interpreter")
    found = reference(np.zeros(1000, np.float32))
    if whole.dtype.kind == "f":
        np.testing.assert_allclose(found, whole[:1000], rtol=2e-6)
    else:
        np.testing.assert_array_equal(found, whole[:1000])


# --- dropout -------------------------------------------------------------------------------------


def test_dropout_keeps_means_and_gradients_see_its_mask():
    rng = random.Generator(7)
    x = gw.placeholder("x", "float32", ("N",))
    y = nn.dropout(x, 0.25, rng=rng)
    values = np.linspace(1, 2, 10_000, dtype=np.float32)
    out, slope = run([y, gw.grad(gw.sum(y), x)], [x], values)
    kept = out != 0
    assert abs(kept.mean() - 0.75) < 0.02
    np.testing.assert_allclose(out[kept], values[kept] / 0.75, rtol=1e-6)
    np.testing.assert_allclose(slope, kept / 0.75, rtol=1e-6)


def test_dropout_without_effect():
    x = gw.placeholder("x", "float32", ("N",))
    rng = random.Generator(7)
    a, b, c = (nn.dropout(x, 0.0, rng=rng), nn.dropout(x, 0.5, False, rng=rng), nn.dropout(x, 1.0, rng=rng))
    values = np.array([1, np.nan, np.inf], np.float32)
    for unchanged in run([a, b], [x], values):
        np.testing.assert_array_equal(unchanged, values)
    assert run(c, [x], values).tolist() == [0, 0, 0]
    p = gw.placeholder("p", "float32")
    assert run(nn.dropout(x, p, rng=rng), [x, p], values, 1.0).tolist() == [0, 0, 0]
    np.testing.assert_array_equal(run(nn.dropout(x, p, rng=rng), [x, p], values, 0.0), values)


def test_a_layer_drops_in_training_and_its_generator_is_saved(tmp_path):
    class Net(nn.Module):
        def __init__(self, seed):
            self.drop = nn.Dropout(0.5, rng=random.Generator(seed))
            self.line = nn.Linear(4, 1)

        def forward(self, x):
            return self.drop(self.line(x))

    net, other = Net(1), Net(2)
    x = gw.placeholder("x", "float32", ("N", 4))
    values = np.ones((1000, 4), np.float32)
    assert set(net.state_dict()) == {"drop.rng", "line.weight", "line.bias"}
    assert len(net.parameters()) == 2
    train = gw.function([x], net(x, training=True))
    assert 400 < (train(values) == 0).sum() < 600 and not (run(net(x), [x], values) == 0).any()
    net.save(tmp_path / "net.safetensors")
    other.load(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(train(values), run(other(x, training=True), [x], values))
