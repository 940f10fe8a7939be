"""A measured search of schedules: the choices of contractions, in the program and at the sizes that matter.

Each round compiles the program with the next choice of every contraction, and takes the time of every kernel
from the profiler's clock. What is found is remembered for a machine, a kernel and its sizes.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import CompileError
from ..passes.lower_to_loops import lower_to_loops
from ..passes.pipelines import kernel_key
from ..passes.schedule_contraction import Choice, choices
from ..passes.schedule_scatter import schedule_scatter
from ..runtime.buffers import Cell
from .cache import Cache, cache_key
from .driver import Compiled, CpuLowered, fingerprint, machine_code
from .profile import Profiled

__all__ = ["Tuned", "search", "tune"]

MARGIN = 0.97
"""The share of the cost model's time below which another choice is taken: less may be chance."""

CALLS = 8
"""Calls that a choice is measured by; the fastest counts."""

Measure = Callable[[Mapping[str, Choice]], Mapping[str, float]]


@dataclass(frozen=True)
class Tuned:
    """What became of one kernel: its choice, and seconds with the cost model's and with that (None: remembered)."""

    kernel: str
    choice: Choice
    before: float | None = None
    after: float | None = None

    def __str__(self) -> str:
        if self.before is None or self.after is None:
            return f"{self.kernel}: {self.choice}; remembered"
        return f"{self.kernel}: {self.choice}; {1e6 * self.before:.1f} -> {1e6 * self.after:.1f} us"


def search(
    candidates: Mapping[str, Sequence[Choice]], measure: Measure, seconds: float, clock: Callable[[], float]
) -> dict[str, dict[Choice, float]]:
    """Seconds of each kernel with as many of its choices as there is time for; with the first in any case.

    `measure` gives the seconds of all kernels with a choice for each. A round that would end too late, going
    by the longest before it, is not begun.
    """
    times: dict[str, dict[Choice, float]] = {key: {} for key in candidates}
    begin, longest = clock(), 0.0
    for at in range(max(map(len, candidates.values()), default=0)):
        started = clock()
        if at and started + longest > begin + seconds:
            break
        chosen = {key: c[at] if at < len(c) else best(times[key]) for key, c in candidates.items()}
        for key, taken in measure(chosen).items():
            times[key][chosen[key]] = min(taken, times[key].get(chosen[key], taken))
        longest = max(longest, clock() - started)
    return times


def best(times: Mapping[Choice, float]) -> Choice:
    """The fastest choice; the first, which is the cost model's, unless another one is clearly faster."""
    model, fastest = next(iter(times)), min(times, key=lambda choice: times[choice])
    return fastest if times[fastest] < MARGIN * times[model] else model


def tune(
    compiled: Any, args: Sequence[Any], kwargs: Mapping[str, Any], dims: Mapping[str, int], seconds: float
) -> tuple[Compiled, list[Tuned]]:
    """The same program with the choices that were fastest for these arguments, and what was chosen.

    Parameters
    ----------
    compiled : a function compiled for this CPU.
    args, kwargs : arguments of its calls; variables are copied, nothing is updated.
    dims : the sizes of its symbolic dimensions in these calls.
    seconds : for the search; kernels that are remembered take none of it.

    Raises
    ------
    CompileError
        If the function is not compiled for the CPU.
    """
    if not isinstance(compiled, Compiled) or not isinstance(compiled.lowered, CpuLowered):
        raise CompileError("only functions compiled for the CPU, without debug=, can be tuned")
    lowered, cache = compiled.lowered, Cache()
    candidates, names = _candidates(lowered)
    place = (repr(lowered.target), json.dumps(sorted(dims.items())))
    keys = {key: cache_key("choice", fingerprint(), *place, key) for key in candidates}
    known = {key: found for key in candidates if (found := _decode(cache.get(keys[key]))) is not None}
    unknown = {key: c for key, c in candidates.items() if key not in known}
    times = search(unknown, _measure(compiled, names, known, args, kwargs), seconds, time.perf_counter)
    report = [Tuned(names[key], choice) for key, choice in known.items()]
    for key, measured in times.items():
        choice, model = best(measured), unknown[key][0]
        known[key] = choice
        report.append(Tuned(names[key], choice, measured[model], measured[choice]))
        if len(measured) == len(unknown[key]):  # else the search goes on another time
            cache.put(keys[key], json.dumps(asdict(choice)).encode())
    different = {key: choice for key, choice in known.items() if choice != candidates[key][0]}
    tuned = _with(lowered, different)
    return Compiled(tuned, *machine_code(tuned, compiled.signature.structure), compiled.cells), report


def _candidates(lowered: CpuLowered) -> tuple[dict[str, tuple[Choice, ...]], dict[str, str]]:
    """The choices of each kernel that has any, and kernels' names, by their keys."""
    assert lowered.program
    candidates, names = {}, {}
    for name, region in lowered.regions.items():
        kernel, cpu = lower_to_loops(region, name), lowered.target.model
        found = choices(kernel, cpu) if schedule_scatter(kernel, cpu) is None else ()
        if len(found) > 1:
            key = kernel_key(kernel)
            candidates[key], names[key] = found, name
    return candidates, names


def _with(lowered: CpuLowered, chosen: Mapping[str, Choice]) -> CpuLowered:
    again = CpuLowered(lowered.graph, lowered.target, lowered.optimize, chosen, lowered.prepare)
    again.folder = lowered.folder
    return again


def _measure(
    compiled: Compiled, names: Mapping[str, str], known: Mapping[str, Choice], args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Measure:  # fmt: skip
    def measure(chosen: Mapping[str, Choice]) -> dict[str, float]:
        variant = copy.copy(compiled)
        assert isinstance(compiled.lowered, CpuLowered)
        variant.lowered = _with(compiled.lowered, {**known, **chosen})
        profiled = Profiled(variant, [Cell(c.name, c.value) for c in compiled.cells])
        profiled(*args, **kwargs)
        taken: dict[str, float] = {}
        for _ in range(CALLS):
            profiled.profile.clear()
            profiled(*args, **kwargs)
            seconds = profiled.profile.seconds_of
            for key in chosen:
                taken[key] = min(seconds[names[key]], taken.get(key, seconds[names[key]]))
        return taken

    return measure


def _decode(data: bytes | None) -> Choice | None:
    """What `tune` has remembered; None for anything else, which is measured again."""
    if data is None:
        return None
    try:
        return Choice(**json.loads(data))
    except (ValueError, TypeError):
        return None
