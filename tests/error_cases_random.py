"""Misuse of random numbers: a part of the table in ``error_cases.py``."""

from __future__ import annotations

from error_cases import case

GENERATOR = """
rng = gw.random.Generator(1)
x = gw.placeholder("x", "float32", ("N", 3))
"""


def random(name: str, title: str, code: str, before: str = GENERATOR) -> None:
    case("random", name, title, before.strip("\n") + "\n" + code.strip("\n") if before else code)


random("seed", "A seed that is no integer", "rng = gw.random.Generator(0.5)", "")
random("seed-range", "A seed out of range", "key = gw.random.key(-1)", "")
random("seed-for-key", "A seed where a key should be", "noise = gw.random.normal(7, (3,))", "")
random("all-keys", "Several keys where one should be", """
keys = gw.random.split(gw.random.key(7), 3)
noise = gw.random.normal(keys, (3,))
""", "")
random("key-dtype", "A key of the wrong dtype", """
key = gw.placeholder("key", "int64", (4,))
noise = gw.random.uniform(key, (3,))
""", "")
random("fold", "A float folded into a key", "key = gw.random.fold_in(gw.random.key(7), 1.5)", "")
random("probability", "A probability above 1", "coin = rng.bernoulli((3,), p=1.5)")
random("probabilities", "A probability below 0 among others", "coin = rng.bernoulli(p=np.array([0.5, -0.1]))")
random("dropout", "Percent for a probability", "y = nn.dropout(x, 20, rng=rng)")
random("rate", "A negative rate", "n = rng.poisson(-1.0, (3,))")
random("scale", "A negative standard deviation", "noise = rng.normal((3,), scale=-1.0)")
random("concentration", "A concentration of 0", "y = rng.gamma(0.0, shape=(3,))")
random("order", "Bounds in the wrong order", "y = rng.uniform((3,), low=1, high=0)")
random("integers", "No integer between two bounds", "k = rng.integers(5, 5, (3,))")
random("integers-float", "Bounds that are floats", "k = rng.integers(0.0, 5.0, (3,))")
random("dtype", "A dtype that is not floating-point", 'y = rng.normal((3,), dtype="int32")')
random("parameters", "Parameters that do not fit the shape", "y = rng.normal((3,), loc=x)")
random("replacement", "More without replacement than there are", "k = rng.choice(3, (4,), replace=False)")
random("weights", "Weights of the wrong number", "k = rng.choice(3, (4,), p=[0.5, 0.5])")
random("logits", "Logits that are integers", "k = rng.categorical([0, 1, 2])")
