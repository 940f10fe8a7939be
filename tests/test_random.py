"""Random numbers: the generator's published values, and that nothing but the position decides."""

from __future__ import annotations

import numpy as np
import pytest
from checks import graph, input_value

from graphwright.compiler.driver import compile_graph
from graphwright.ir import dims
from graphwright.ir.dtypes import DTYPES, uint32, uint64
from graphwright.ir.op import OPS
from graphwright.ir.ops.random import philox

KEY = np.array([1, 2, 3, 4], np.uint32)

# Known-answer tests of philox4x32 with 10 rounds, from the Random123 library that Salmon et al. published.
ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]  # fmt: skip


@pytest.mark.parametrize(("counter", "key", "words"), ANSWERS)
def test_philox_gives_the_published_words(counter: tuple, key: tuple, words: tuple) -> None:
    assert tuple(philox(counter, key).tolist()) == words


@pytest.mark.parametrize("dtype", [uint32, uint64])
def test_an_element_depends_on_its_position_alone(dtype: DTYPES) -> None:
    """Whatever the size and the shape of a draw, and in compiled code as by the reference."""
    n = dims.symbol("N")
    key, like = input_value("key", (4,), "uint32"), input_value("x", (n,), "float32")
    bits = OPS["random_bits"](key, shape=(n, 3), dtype=dtype, stream=5)
    run = compile_graph(graph([key, like], [bits]), structure="*").executable
    whole = OPS["random_bits"].reference(KEY, (3000,), dtype, 5)
    for size in (0, 1, 40, 1000):
        found = run(KEY, np.zeros(size, np.float32))
        np.testing.assert_array_equal(found.ravel(), whole[: 3 * size])


def test_streams_and_keys_differ() -> None:
    draws = [
        OPS["random_bits"].reference(np.array(key, np.uint32), (64,), uint32, stream)
        for key, stream in (([0, 0, 0, 0], 0), ([0, 0, 0, 0], 1), ([1, 0, 0, 0], 0), ([0, 0, 1, 0], 0))
    ]
    assert len(set(np.concatenate(draws).tolist())) > 250
