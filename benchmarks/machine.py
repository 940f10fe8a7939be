"""The machine and its limits: processors, arithmetic peak, memory bandwidth."""

from __future__ import annotations

import ctypes
import os
import platform
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["choose_cpus", "describe", "peak_flops", "peak_bandwidth"]

_REGISTERS = 12  # independent accumulators: enough for the latency of two units, few enough for AVX2


def choose_cpus(count: int) -> list[int]:
    """Processors to run on, of different cores; empty where a process cannot choose, or there are not enough."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    chosen: list[int] = []
    taken: set[str] = set()
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        core = siblings.read_text().strip() if siblings.exists() else str(cpu)
        if core not in taken:
            taken.add(core)
            chosen.append(cpu)
    return chosen[:count] if len(chosen) >= count else []


def describe() -> dict[str, Any]:
    """What to print above the table."""
    return {
        "cpu": _cpu_name(), "system": platform.platform(), "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None, "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def peak_flops(threads: int, repeat: int = 5) -> float | None:
    """Float32 additions and multiplications per second of fused multiply-adds in registers; None without llvmlite."""
    try:
        import llvmlite.binding as llvm
    except ImportError:
        return None
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features()
    width = 16 if features.get("avx512f") else 8 if features.get("avx") else 4
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=2,
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(_fma_loop(width)), machine)
    engine.finalize_object()
    kernel = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(engine.get_function_address("fma_loop"))
    rounds = 2_000_000

    def run() -> None:
        kernel(rounds, np.zeros(_REGISTERS * width, np.float32).ctypes.data_as(ctypes.c_void_p))

    return 2 * _REGISTERS * width * rounds * threads / _fastest(run, threads, repeat)


def _fma_loop(width: int) -> str:
    vector = f"<{width} x float>"
    names = range(_REGISTERS)
    lines = [
        f"declare {vector} @llvm.fma.v{width}f32({vector}, {vector}, {vector})",
        "define void @fma_loop(i64 %n, ptr %p) {", "entry:", f"  %x = load {vector}, ptr %p, align 4",
        "  br label %loop", "loop:", "  %i = phi i64 [ 0, %entry ], [ %next, %loop ]",
        *(f"  %a{k} = phi {vector} [ %x, %entry ], [ %b{k}, %loop ]" for k in names),
        *(f"  %b{k} = call {vector} @llvm.fma.v{width}f32({vector} %x, {vector} %x, {vector} %a{k})" for k in names),
        "  %next = add i64 %i, 1", "  %more = icmp slt i64 %next, %n", "  br i1 %more, label %loop, label %done",
        "done:",
        *(f"  %p{k} = getelementptr {vector}, ptr %p, i64 {k}" for k in names),
        *(f"  store {vector} %b{k}, ptr %p{k}, align 4" for k in names), "  ret void", "}",
    ]
    return "\n".join(lines)


def peak_bandwidth(threads: int, nbytes: int = 1 << 27, repeat: int = 5) -> float:
    """Bytes read and written per second by copies of arrays far larger than the caches."""
    arrays = threading.local()

    def run() -> None:
        if not hasattr(arrays, "pair"):
            arrays.pair = np.ones((2, nbytes // threads // 4), np.float32)
        np.copyto(arrays.pair[1], arrays.pair[0])

    return 2 * nbytes / _fastest(run, threads, repeat)


def _fastest(run: Callable[[], None], threads: int, repeat: int) -> float:
    """Seconds of the fastest of some runs in all threads at once, after one to warm up."""
    barrier = threading.Barrier(threads)
    times: list[list[float]] = [[] for _ in range(repeat + 1)]

    def work() -> None:
        for number in range(repeat + 1):
            barrier.wait()
            start = time.perf_counter()
            run()
            times[number].append(time.perf_counter() - start)

    group = [threading.Thread(target=work) for _ in range(threads)]
    for thread in group:
        thread.start()
    for thread in group:
        thread.join()
    return min(max(several) for several in times[1:])
