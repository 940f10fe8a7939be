"""How fast this machine can be at most: measured by generated code, once, and kept in the cache folder.

The model is the roofline (Williams, Waterman, Patterson, "Roofline: an insightful visual performance model
for multicore architectures", 2009): a kernel takes at least the time of its arithmetic at the peak rate, and
at least the time of its bytes at the bandwidth. Bandwidth is measured for several sizes of the data, since
what fits a cache is faster than the memory.
"""

from __future__ import annotations

import ctypes
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..runtime.buffers import address_of, aligned_empty
from ..runtime.cpu import host_flags
from ..runtime.image import Image, LoadedImage
from ..runtime.threads import get_num_threads
from .cache import Cache, cache_key
from .driver import fingerprint, host_target
from .target import CpuTarget

__all__ = ["Roofline", "clock_rate", "roofline"]

_ACCUMULATORS = 12  # independent chains hide the latency of a fused multiply-add
_SIZES = (32 * 2**10, 256 * 2**10, 4 * 2**20, 64 * 2**20)
_SECONDS = 0.01
_ATTEMPTS = 4


@dataclass(frozen=True)
class Roofline:
    """The machine's limits.

    Attributes
    ----------
    flops : float32 operations per second, all threads together.
    bandwidth : pairs of bytes touched and bytes per second, by size.
    threads : how many were used.
    """

    flops: float
    bandwidth: tuple[tuple[int, float], ...]
    threads: int

    def bytes_per_second(self, nbytes: int) -> float:
        """The bandwidth for data of this size."""
        return next((rate for size, rate in self.bandwidth if nbytes <= size), self.bandwidth[-1][1])

    def seconds(self, single: int, double: int, nbytes: int) -> float:
        """The shortest time for so many operations in float32 and float64, on so many bytes."""
        arithmetic = (single + 2 * double) / self.flops
        return max(arithmetic, nbytes / self.bytes_per_second(nbytes) if nbytes else 0.0)

    def __str__(self) -> str:
        memory = self.bandwidth[-1][1]
        return f"{self.flops / 1e9:.1f} GFLOP/s, {memory / 1e9:.1f} GB/s from memory, {self.threads} threads"


def roofline(reached: float = 0.0) -> Roofline:
    """This machine's limits, from the cache if they were measured before.

    If a kernel has reached more operations per second than the cache says, these were measured while the machine had
    other work: they are measured again, and the larger figures remain.
    """
    cache, threads = Cache(), get_num_threads()
    key = cache_key("roofline 2", str(threads), *sorted(host_flags()))
    found = cache.get(key)
    flops, bandwidth = json.loads(found) if found is not None else (0.0, [(n, 0.0) for n in _SIZES])
    if flops < reached or not flops:
        flops = max(flops, _peak_flops(threads))
        bandwidth = [(n, max(rate, _bandwidth(n, threads))) for n, rate in bandwidth]
        cache.put(key, json.dumps([flops, bandwidth]).encode())
    return Roofline(flops, tuple((int(n), float(rate)) for n, rate in bandwidth), threads)


@lru_cache(maxsize=1)
def clock_rate() -> float:
    """Ticks of the clock of generated code per second, by the system's monotonic clock."""
    read = _function("gw_clock", 0)
    read(), time.perf_counter()
    ticks, seconds = read(), time.perf_counter()
    time.sleep(0.02)
    return float((read() - ticks) / (time.perf_counter() - seconds))


# --- measuring -----------------------------------------------------------------------------------


def _peak_flops(threads: int) -> float:
    work, n = _function("gw_fma", 1), 100_000
    lanes = host_target().model.vector_bytes // 4
    seconds = _best(lambda k: lambda: work(n), threads)
    n = max(int(n * _SECONDS / seconds), 1)
    seconds = min(_best(lambda k: lambda: work(n), threads) for _ in range(_ATTEMPTS))
    return 2.0 * _ACCUMULATORS * lanes * n * threads / seconds


def _bandwidth(nbytes: int, threads: int) -> float:
    """Bytes per second that are read and written, over data of this size in all."""
    copy, half = _function("gw_copy", 4), nbytes // 2 // threads // 512 * 512
    memory = [(aligned_empty((half,), np.uint8), aligned_empty((half,), np.uint8)) for _ in range(threads)]
    places = []
    for source, target in memory:
        source[:], target[:] = 0, 0
        places.append((address_of(source), address_of(target)))

    def seconds(repeat: int) -> float:
        return _best(lambda k: lambda: copy(*places[k], half, repeat), threads)

    once = seconds(1) + 1e-7
    repeat = max(int(_SECONDS / once), 1)
    best = min(seconds(repeat) for _ in range(_ATTEMPTS))
    return 2.0 * half * threads * repeat / best


def _best(work: Callable[[int], Callable[[], object]], threads: int) -> float:
    """Seconds until all threads have done their work, begun together."""
    barrier, done = threading.Barrier(threads), [(0.0, 0.0)] * threads

    def run(k: int) -> None:
        job = work(k)
        barrier.wait()
        begin = time.perf_counter()
        job()
        done[k] = begin, time.perf_counter()

    others = [threading.Thread(target=run, args=(k,)) for k in range(1, threads)]
    for thread in others:
        thread.start()
    run(0)
    for thread in others:
        thread.join()
    return max(end for _, end in done) - min(begin for begin, _ in done)


@lru_cache(maxsize=1)
def _image() -> LoadedImage:
    cache, target = Cache(), host_target()
    key = cache_key("roofline code", fingerprint(), repr(target))
    found = cache.get(key)
    if found is None:
        found = _compiled(target).to_bytes()
        cache.put(key, found)
    return LoadedImage(Image.from_bytes(found))


def _function(name: str, arguments: int) -> Callable[..., int]:
    image = _image()
    function = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * arguments)(image.address(name))
    function._image = image  # type: ignore[attr-defined]  # the code lives as long as the function
    return function


def _compiled(target: CpuTarget) -> Image:
    from .link import link
    from .llvm.clock import read_clock
    from .llvm.codegen import attributes, parse
    from .llvm.function import FunctionText, ModuleText

    module = ModuleText()
    f = FunctionText(module)
    f.emit(f"ret {read_clock(f, target)}")
    lanes = target.model.vector_bytes // 4
    module.functions += [f.text("define i64 @gw_clock() #0"), _fma_text(lanes), _copy_text(lanes)]
    vector = f"<{lanes} x float>"
    module.declare(f"declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})")
    text = "\n".join([module.text(), attributes(target)])
    return link(parse(text, target).optimize().object_code(), triple=target.triple, features=target.required_features)


def _fma_text(lanes: int) -> str:
    vector = f"<{lanes} x float>"
    factor, term = (f"splat (float {x})" for x in ("0.5", "1.0"))
    phis = [f"  %a{k} = phi {vector} [ splat (float {k}.0), %entry ], [ %b{k}, %loop ]" for k in range(_ACCUMULATORS)]
    steps = [
        f"  %b{k} = call {vector} @llvm.fma.v{lanes}f32({vector} %a{k}, {vector} {factor}, {vector} {term})"
        for k in range(_ACCUMULATORS)
    ]
    sums = [
        f"  %s{k} = fadd {vector} %{'b0' if k == 1 else f's{k - 1}'}, %b{k}" for k in range(1, _ACCUMULATORS)
    ]
    return "\n".join([
        "define i64 @gw_fma(i64 %n) #0 {", "entry:", "  br label %loop", "loop:",
        "  %i = phi i64 [ 0, %entry ], [ %next, %loop ]", *phis, *steps,
        "  %next = add i64 %i, 1", "  %more = icmp slt i64 %next, %n",
        "  br i1 %more, label %loop, label %done", "done:", *sums,
        f"  %first = extractelement {vector} %s{_ACCUMULATORS - 1}, i64 0",
        "  %result = fptosi float %first to i64", "  ret i64 %result", "}",
    ])  # fmt: skip


def _copy_text(lanes: int) -> str:
    vector, unroll = f"<{lanes} x float>", 4
    moves = []
    for k in range(unroll):
        moves += [
            f"  %o{k} = add i64 %i, {k * lanes * 4}",
            f"  %p{k} = getelementptr i8, ptr %from, i64 %o{k}", f"  %q{k} = getelementptr i8, ptr %to, i64 %o{k}",
            f"  %x{k} = load {vector}, ptr %p{k}, align 16",
            f"  %y{k} = fadd {vector} %x{k}, splat (float 1.0)",
            f"  store {vector} %y{k}, ptr %q{k}, align 16",
        ]  # fmt: skip
    return "\n".join([
        "define i64 @gw_copy(i64 %a, i64 %b, i64 %n, i64 %repeat) #0 {", "entry:",
        "  %from = inttoptr i64 %a to ptr", "  %to = inttoptr i64 %b to ptr", "  br label %again", "again:",
        "  %r = phi i64 [ 0, %entry ], [ %r.next, %finished ]", "  br label %loop", "loop:",
        "  %i = phi i64 [ 0, %again ], [ %next, %loop ]", *moves,
        f"  %next = add i64 %i, {unroll * lanes * 4}", "  %more = icmp slt i64 %next, %n",
        "  br i1 %more, label %loop, label %finished", "finished:",
        "  call void asm sideeffect \"\", \"~{memory}\"()",
        "  %r.next = add i64 %r, 1", "  %once.more = icmp slt i64 %r.next, %repeat",
        "  br i1 %once.more, label %again, label %done", "done:", "  ret i64 0", "}",
    ])  # fmt: skip
