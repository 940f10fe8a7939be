"""Machines that code is generated for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ..passes.cpu_model import CpuModel

__all__ = ["CpuTarget", "host"]


@dataclass(frozen=True)
class CpuTarget:
    """A CPU as LLVM names it, and what the schedules need to know of it."""

    triple: str
    cpu: str
    features: str
    model: CpuModel


@lru_cache(maxsize=1)
def host() -> CpuTarget:
    """The machine this process runs on."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    triple = llvm.get_process_triple()
    return CpuTarget(triple, llvm.get_host_cpu_name(), features.flatten(), _model(triple, dict(features)))


def _model(triple: str, features: dict[str, bool]) -> CpuModel:
    if not triple.startswith(("x86_64", "i686")):
        return CpuModel(vector_bytes=16, registers=32)
    if features.get("avx512vl"):
        # 32 registers of 32 bytes: wider ones lower the clock or are split in two on many of these
        return CpuModel(vector_bytes=32, registers=32, l2_bytes=1024 * 1024)
    if features.get("avx2"):
        return CpuModel(vector_bytes=32, registers=16)
    return CpuModel(vector_bytes=16, registers=16)
