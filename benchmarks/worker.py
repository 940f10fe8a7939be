"""The processes of one peer: prepare a workload, save results to be checked, then measure on request.

It is started as a script, by the peer's interpreter, and imports the peer. A workload is named on standard input; each
line after that asks for samples, for what is measured once at the end, or for its end. If several workloads share the
process, it forks for each, so that none meets the memory of another. Replies are lines of JSON on standard output, one
for each line.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TextIO

if __name__ == "__main__":
    # The repository's own folders must not hide installed modules: it is looked in first only for this package.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    import benchmarks  # noqa: F401

    sys.path.append(sys.path.pop(0))

import numpy as np

from benchmarks.peer import Peer, Session, Unsupported, peers
from benchmarks.workload import find

STEPS = 3  # training steps whose losses and parameters are compared
SAMPLE_SECONDS = 100e-6  # faster calls are timed several at once
LEAST, MOST = 5, 20_000  # samples of a measurement


@dataclass
class Loaded:
    """A peer that is imported."""

    peer: Peer
    version: str
    seconds: float
    rss: int | None


@cache
def load(name: str, threads: int) -> Loaded:
    """Import a peer, once."""
    peer, start = peers()[name], time.perf_counter()
    version = peer.load(threads)
    return Loaded(peer, version, time.perf_counter() - start, _peak_rss())


def prepare(job: dict[str, Any]) -> tuple[Session, dict[str, Any]]:
    """Build the workload and run its first steps, the results of which go to a file."""
    workload = find(job["workload"])[0]
    parameters, inputs = workload.data(job["tiny"])
    imported = load(job["peer"], job["threads"])
    peer = imported.peer
    start = time.perf_counter()
    session = peer.build(workload, parameters, inputs)
    result = session.step()
    compiled = time.perf_counter()

    def compared(result: Any) -> list[Any]:
        return workload.compared(session.results(result))

    arrays = {f"step0 output{i}": a for i, a in enumerate(compared(result))}
    for number in range(1, STEPS if workload.kind == "train" else 1):
        arrays |= {f"step{number} output{i}": a for i, a in enumerate(compared(session.step()))}
    if workload.kind == "train":
        arrays |= {f"parameter {name}": a for name, a in session.parameters().items()}
    np.savez(job["results"], **arrays)
    return session, {
        "version": imported.version, "python": sys.version.split()[0], "import_s": imported.seconds,
        "compile_s": compiled - start if peer.compiles else None,
        # of what was imported before a fork, the memory of a workload has a part that nobody knows
        "imported_rss": None if job["share"] else imported.rss,
    }


def finish(job: dict[str, Any], session: Session, batch: bool) -> dict[str, Any]:
    """What is measured once: memory, and (`batch`) the first call with another batch size, and the second."""
    reply: dict[str, Any] = {"scratch": session.scratch() if session.scratch else None}
    workload = find(job["workload"])[0]
    if session.call is None or not workload.batched or not batch:
        return reply
    _, inputs = workload.data(job["tiny"])
    session.call(inputs)
    other = {name: _another_batch(value) for name, value in inputs.items()}
    for key in ("new_batch_s", "again_s"):
        start = time.perf_counter()
        session.call(other)
        reply[key] = time.perf_counter() - start
    return reply


def _another_batch(value: np.ndarray) -> np.ndarray:
    """A quarter less, or two of one."""
    return value[:-(-len(value) * 3 // 4)].copy() if len(value) > 1 else np.concatenate([value, value])


def measure(step: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """Seconds per call, many times; each sample is of as many calls as the clock needs."""
    clock = time.perf_counter
    warm = clock() + seconds / 5
    while True:
        start = clock()
        step()
        end = clock()
        if end >= warm:
            break
    calls = max(1, round(SAMPLE_SECONDS / (end - start)))
    samples: list[float] = []
    deadline = clock() + seconds
    gc.disable()
    while len(samples) < LEAST or (len(samples) < MOST and clock() < deadline):
        repeat = itertools.repeat(None, calls)
        start = clock()
        for _ in repeat:
            step()
        samples.append((clock() - start) / calls)
    gc.enable()
    return {"samples": samples, "calls": calls, "peak_rss": _peak_rss()}


def _peak_rss() -> int | None:
    # Not getrusage, whose figure a new process inherits from the one that started it.
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
    return 1024 * int(found[1]) if found else None


def _attempt(job: dict[str, Any]) -> tuple[Session | None, dict[str, Any]]:
    try:
        return prepare(job)
    except ImportError as error:
        return None, {"missing": str(error)}
    except Unsupported as error:
        return None, {"unsupported": str(error)}
    except Exception as error:
        traceback.print_exc()
        return None, {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    job = json.loads(sys.argv[1])
    # What libraries print goes to the log; replies keep the real standard output.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    if job["cpus"]:
        os.sched_setaffinity(0, job["cpus"])
    with suppress(Exception):  # a child says why
        load(job["peer"], job["threads"])
    for line in iter(sys.stdin.readline, ""):
        if not job["share"]:
            serve(job | json.loads(line), replies)
            return
        child = os.fork()
        if not child:
            serve(job | json.loads(line), replies)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            print(json.dumps({"error": f"the process ended with status {status}"}), file=replies)


def serve(job: dict[str, Any], replies: TextIO) -> None:
    """Prepare a workload, then answer questions about it until they end."""
    session, reply = _attempt(job)
    print(json.dumps(reply), file=replies)
    for line in iter(sys.stdin.readline, ""):
        asked = json.loads(line)
        if "end" in asked:
            print(json.dumps(asked), file=replies)
            break
        if session is None:
            found = {"error": "no workload is prepared"}
        else:
            found = measure(session.step, asked["seconds"]) if "seconds" in asked else finish(job, session, **asked)
        print(json.dumps(found), file=replies)
    replies.flush()


if __name__ == "__main__":
    main()
