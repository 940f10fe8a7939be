"""The second half of the demo, in a process of its own: an artifact at work where there is no compiler.

``python -m graphwright.frontends.demo_child MODEL.gwa INPUTS.npz`` prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["ABSENT", "main"]

ABSENT = ("numba", "llvmlite", "sympy", "graphwright.compiler", "graphwright.passes", "graphwright.ir")


class _Blocker(MetaPathFinder):
    """Makes packages impossible to import, as if they were not installed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if any(f"{fullname}.".startswith(f"{name}.") for name in ABSENT):
            raise ModuleNotFoundError(f"{fullname} is blocked here", name=fullname)
        return None


def main(model_path: str, inputs_path: str) -> dict[str, object]:
    """Load, predict, compare, train for one epoch; what happened."""
    loaded = [name for name in ABSENT if name in sys.modules]
    assert not loaded, f"already imported: {loaded}"
    sys.meta_path.insert(0, _Blocker())
    import numpy as np

    import graphwright as gw

    load = gw.load
    start = time.perf_counter()
    model = load(model_path)
    loading = time.perf_counter() - start

    inputs = dict(np.load(inputs_path, allow_pickle=False))
    answer = model.predict(inputs["test_images"])
    identical = all(answer[name].tobytes() == inputs[name].tobytes() for name in ("digit", "probability"))

    images, labels, batch = inputs["images"], inputs["labels"], int(inputs["batch"])
    start, losses = time.perf_counter(), []
    for k in range(0, len(images), batch):
        step = model.train(images[k : k + batch], labels[k : k + batch], float(inputs["rate"]))
        losses.append(float(step["loss"]))
    training = time.perf_counter() - start
    right = model.predict(inputs["test_images"])["digit"] == inputs["test_labels"]

    members = model.manifest["members"]
    code = sum(m["size"] for name, m in members.items() if name.startswith("code/"))
    return {
        "absent": ABSENT, "load": loading, "identical": identical, "train": training, "code": code,
        "loss": float(np.mean(losses)), "accuracy": float(right.mean()),
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
