"""Run the workloads in Graphwright and its peers, and write the tables.

::

    python -m benchmarks.run --quick --only lenet,mlp --peers graphwright,pytorch,jax

For each workload, every peer gets a process of its own with the same number of threads on the same cores,
and the same float32 data (with ``--quick`` forked from one that has imported the peer). Results of the first
steps are compared with NumPy in float64, and only peers that agree are measured. Then, in several rounds,
they are measured in turn, the others being idle; the table has the median of all samples. Data are where the
peer wants them before the clock starts, and a call ends when its results are there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import machine, report
from .compare import worst_error
from .peer import Peer, peers
from .process import Worker
from .workload import Workload, find

__all__ = ["main"]

_ROOT = Path(__file__).resolve().parent.parent
_PAUSE = 0.05  # seconds for the threads of the peer before to stop spinning


class Runner:
    """One run with its options."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        everything = peers()
        usual = [p.name for p in everything.values() if p.default and (p.quick or not options.quick)]
        names = options.peers.split(",") if options.peers else usual
        unknown = [name for name in names if name not in everything]
        if unknown:
            raise SystemExit(f"no peer {unknown[0]!r}; there are {', '.join(everything)}")
        self.peers = [everything[name] for name in names]
        self.reference = everything["reference"]
        self.cpus = machine.choose_cpus(options.threads)
        self.versions: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self.share = options.quick and not options.compile_times
        self.kept: dict[str, Worker] = {}
        self.folder = Path()
        self.failed = False

    def run(self) -> dict[str, Any]:
        """All workloads that were chosen."""
        options = self.options
        described = machine.describe()
        limits = options.limits and not options.tiny
        described["flops"] = machine.peak_flops(options.threads) if limits else None
        described["bandwidth"] = machine.peak_bandwidth(options.threads) if limits else None
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as name:
            self.folder = Path(name)
            rows = [self.workload(w) for w in find(options.only)]
            for worker in self.kept.values():
                worker.close()
        order = [p.name for p in self.peers if p.name in self.versions]
        return {
            "machine": described, "threads": options.threads, "versions": self.versions, "order": order,
            "titles": {p.name: p.title for p in self.peers}, "workloads": rows,
        }

    def workload(self, workload: Workload) -> dict[str, Any]:
        """Check and measure one workload in all peers."""
        sizes = workload.tiny if self.options.tiny else workload.sizes
        cells: dict[str, dict[str, Any]] = {}
        workers: dict[str, Worker] = {}
        self.say(workload.title)
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as name:
            self.folder = self.folder if self.share else Path(name)
            try:
                reference = self.start(self.reference, workload)
                self.release(reference)
                if reference.failure:
                    raise SystemExit(f"the reference failed: {reference.failure}")
                # Together where nobody measures how long it takes: most of it is imports.
                with ThreadPoolExecutor(1 if self.options.compile_times else self.options.threads) as pool:
                    prepared = pool.map(lambda p: self.prepare(p, workload, reference.results), self.peers)
                    for peer, (cells[peer.name], worker) in zip(self.peers, prepared):
                        if worker is not None:
                            workers[peer.name] = worker
                self.measure(workers, cells)
            finally:
                for worker in workers.values():
                    self.release(worker)
        return {
            "name": workload.name, "title": workload.title, "sizes": dict(sizes), "peers": cells,
            "flops": workload.flops(sizes) if workload.flops else None,
            "nbytes": workload.nbytes(sizes) if workload.nbytes else None, "aim": workload.aim,
        }

    def start(self, peer: Peer, workload: Workload) -> Worker:
        """A process that has prepared a workload; if workloads share it, forked from the one that the peer has."""
        options = self.options
        kept = self.kept.pop(peer.name, None)
        if kept is not None and kept.alive:
            kept.prepare(workload, options.tiny)
            return kept
        pythons = (options.python_peers or sys.executable).split(",")
        for python in [sys.executable] if peer.ours else pythons:
            worker = Worker(
                peer, python=python, threads=options.threads, cpus=self.cpus, share=self.share,
                cache=self.cache(peer), folder=self.folder,
            )
            worker.prepare(workload, options.tiny)
            if "missing" not in worker.ready:
                break
            worker.close()
        return worker

    def cache(self, peer: Peer) -> Path:
        """The folder in which a peer keeps what it compiles."""
        cache = self.folder / "cache" if self.options.compile_times else Path(self.options.out).resolve() / "cache"
        (cache / peer.name).mkdir(parents=True, exist_ok=True)
        return cache / peer.name

    def release(self, worker: Worker) -> None:
        """A workload is done with, and so is the process, unless workloads share it."""
        if self.share and worker.alive:
            self.kept[worker.peer.name] = worker
        else:
            worker.close()

    def prepare(
        self, peer: Peer, workload: Workload, reference: Path,
    ) -> tuple[dict[str, Any], Worker | None]:
        """Start a peer, twice for the compile time from its cache, and check its results."""
        if peer.name in self.missing or peer.name in workload.leave_out:
            return {"failure": self.missing.get(peer.name) or f"unsupported: {workload.leave_out[peer.name]}"}, None
        cell: dict[str, Any] = {}
        worker = self.start(peer, workload)
        if self.options.compile_times and peer.compiles and not worker.failure:
            cell["cold_s"] = worker.ready["compile_s"]
            worker.close()
            worker = self.start(peer, workload)
            cell["cached_s"] = worker.ready.get("compile_s")
        failure = worker.failure or self.check(workload, worker, reference, cell)
        if failure is None:
            self.versions[peer.name] = worker.ready["version"]
            cell["imported_rss"] = worker.ready["imported_rss"]
            return cell, worker
        self.release(worker)
        if failure.startswith("missing"):
            self.missing[peer.name] = failure
        self.failed |= failure.startswith(("error", "wrong"))
        self.say(f"  {peer.title}: {failure}")
        return cell | {"failure": failure}, None

    def check(self, workload: Workload, worker: Worker, reference: Path, cell: dict[str, Any]) -> str | None:
        """Compare the peer's first results with the reference."""
        initial, _ = workload.data(self.options.tiny)
        error, of = worst_error(workload, worker.results, reference, initial)
        cell["error"] = error
        return None if error <= 1 else f"wrong: the error of {of} is {error:.3g} times what is allowed"

    def measure(self, workers: dict[str, Worker], cells: dict[str, dict[str, Any]]) -> None:
        """Rounds in which all are measured in turn, each round beginning with another."""
        samples: dict[str, list[list[float]]] = {name: [] for name in workers}
        names = list(workers)
        for number in range(self.options.rounds):
            for name in names[number % len(names):] + names[:number % len(names)] if names else ():
                time.sleep(_PAUSE)
                reply = workers[name].measure(self.options.seconds)
                if "error" in reply:
                    cells[name]["failure"], self.failed = f"error: {reply['error']}", True
                    names = [n for n in names if n != name]
                    continue
                samples[name].append(reply["samples"])
                cells[name] |= {"calls": reply["calls"], "peak_rss": reply["peak_rss"]}
        for name in names:
            cells[name] |= _summary(samples[name])
            once = workers[name].finish(batch=self.options.compile_times)
            cells[name] |= {k: v for k, v in once.items() if v is not None and k != "error"}
            self.say(f"  {peers()[name].title:24s}{1e3 * cells[name]['median_s']:12.5f} ms")

    def say(self, text: str) -> None:
        if not self.options.quiet:
            print(text, flush=True)


def _summary(rounds: Sequence[list[float]]) -> dict[str, Any]:
    samples = sorted(sample for several in rounds for sample in several)
    return {
        "median_s": statistics.median(samples), "fastest_s": samples[0], "samples": len(samples),
        "p10_s": samples[len(samples) // 10], "p90_s": samples[len(samples) * 9 // 10],
        "round_medians_s": [statistics.median(several) for several in rounds],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.split("\n")[0])
    parser.add_argument("--only", metavar="A,B", help="workloads, by name or the beginning of it")
    parser.add_argument("--peers", metavar="A,B", help="peers, by name")
    parser.add_argument("--quick", action="store_true", help="short rounds; a process for each peer")
    parser.add_argument("--rounds", type=int, help="rounds (default 5, quick 3)")
    parser.add_argument("--seconds", type=float, help="seconds for each peer in a round (default 1, quick 0.12)")
    parser.add_argument("--threads", type=int, default=2, help="threads for each peer (default 2)")
    parser.add_argument(
        "--compile-times", action=argparse.BooleanOptionalAction, default=None,
        help="measure compilation, with an empty cache and from it, and new batch sizes (default: unless quick)",
    )
    parser.add_argument(
        "--python-peers", metavar="A,B", help="interpreters in which peers are installed; each is looked for in turn",
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the other workloads of the results that are there",
    )
    parser.add_argument("--out", default=str(_ROOT / "build" / "bench"), help="folder for the results (build/bench)")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: a test of the benchmarks themselves")
    parser.add_argument("--no-limits", dest="limits", action="store_false", help="do not measure the machine's limits")
    parser.add_argument("--quiet", action="store_true", help="print nothing but the tables")
    parser.add_argument("--list", action="store_true", help="list workloads and peers")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; 1 if a peer failed or computed something else."""
    options = _parser().parse_args(arguments)
    if options.list:
        print("workloads:", *(f"  {w.name:20s}{w.title}" for w in find(None)), sep="\n")
        print("peers:", *(f"  {p.name:20s}{p.title}" for p in peers().values()), sep="\n")
        return 0
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.seconds = options.seconds or (0.12 if options.quick else 1.0)
    if options.compile_times is None:
        options.compile_times = not options.quick
    for python in (options.python_peers or sys.executable).split(","):
        if not shutil.which(python):
            raise SystemExit(f"no interpreter {python!r}")
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    runner = Runner(options)
    run = runner.run()
    if options.keep and (out / "results.json").exists():
        run = report.joined(json.loads((out / "results.json").read_text()), run)
    files = report.write(run, out)
    print("\n" + report.markdown(run))
    print("written:", *files)
    return int(runner.failed)


if __name__ == "__main__":
    sys.exit(main())
