"""The parent's side of a `benchmarks.worker`."""

from __future__ import annotations

import json
import os
import select
import subprocess
from pathlib import Path
from typing import Any

from .peer import Peer
from .workload import Workload

__all__ = ["Worker"]

_SCRIPT = Path(__file__).with_name("worker.py")
_THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS", "NUMBA_NUM_THREADS",
)


class Worker:
    """A process for one peer and one workload; with `share` for one after another, each in a process forked from it.

    Attributes
    ----------
    ready : its reply to the last workload: version and compile time, or why it cannot run.
    results : the file with the results of that workload's first steps.
    """

    def __init__(
        self, peer: Peer, *, python: str, threads: int, cpus: list[int], share: bool, folder: Path, cache: Path,
    ) -> None:
        self.peer = peer
        self._log = folder / f"{peer.name}.log"
        self.results = folder / f"{peer.name}.npz"
        self.ready: dict[str, Any] = {}
        job = {"peer": peer.name, "threads": threads, "cpus": cpus, "share": share}
        environment = dict(os.environ) | dict.fromkeys(_THREADS, str(threads))
        environment |= peer.environment(threads, str(cache))
        with open(self._log, "w") as log:
            self._process = subprocess.Popen(
                [python, str(_SCRIPT), json.dumps(job)],
                env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1,
            )

    def prepare(self, workload: Workload, tiny: bool, timeout: float = 900) -> None:
        """Build a workload and run its first steps, in place of the one before."""
        if self.ready:
            self._ask({"end": True}, 60)
        asked = {"workload": workload.name, "tiny": tiny, "results": str(self.results)}
        self.ready = self._ask(asked, timeout)

    @property
    def failure(self) -> str | None:
        """Why there is nothing to measure, or None."""
        for key in ("missing", "unsupported", "error"):
            if key in self.ready:
                return f"{key}: {self.ready[key]}"
        return None

    @property
    def alive(self) -> bool:
        """Whether the process takes another workload."""
        return self._process.poll() is None

    def measure(self, seconds: float) -> dict[str, Any]:
        """Samples of the workload, in seconds, taken for about so long."""
        return self._ask({"seconds": seconds}, 60 + 100 * seconds)

    def finish(self, batch: bool) -> dict[str, Any]:
        """Scratch memory, and, if asked for, the latency of a new batch size."""
        return self._ask({"batch": batch}, 300)

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, question: dict[str, Any], timeout: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            print(json.dumps(question), file=self._process.stdin)
        except BrokenPipeError:
            return {"error": self._ended()}
        return self._reply(timeout)

    def _reply(self, timeout: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            self._process.kill()
            return {"error": f"no answer in {timeout:.0f} s"}
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"error": self._ended()}

    def _ended(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"the process ended with {self._process.wait()}: {lines[-1] if lines else ''}"
