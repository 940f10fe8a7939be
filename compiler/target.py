"""Machines that code is generated for."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

from ..passes.cpu_model import CpuModel
from ..passes.cuda_model import CudaModel

__all__ = ["CpuTarget", "CudaTarget", "host"]

_CHECKED = ("sse4.2", "avx", "avx2", "fma", "bmi2", "avx512f", "avx512dq", "avx512bw", "avx512vl", "neon", "sve")


@dataclass(frozen=True)
class CpuTarget:
    """A CPU as LLVM names it, and what the schedules need to know of it."""

    triple: str
    cpu: str
    features: str
    model: CpuModel

    @property
    def required_features(self) -> tuple[str, ...]:
        """The vector extensions that the code may use, by LLVM's names."""
        enabled = {f[1:] for f in self.features.split(",") if f.startswith("+")}
        return tuple(f for f in _CHECKED if f in enabled)

    def to_json(self) -> dict[str, Any]:
        """As a dictionary that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> CpuTarget:
        """The target that `to_json` wrote."""
        return cls(**{**data, "model": CpuModel(**data["model"])})


@dataclass(frozen=True)
class CudaTarget:
    """A GPU: the compute capability that PTX is made for, and what the schedules need to know of it."""

    capability: tuple[int, int] = (8, 0)
    model: CudaModel = field(default_factory=CudaModel)


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
        # wider vectors lower the clock or are split in two on many of these: only dense arithmetic gains from them
        return CpuModel(vector_bytes=32, registers=32, tile_bytes=64, masked_bytes=1 if features.get("avx512bw") else 4)
    if features.get("avx2"):
        return CpuModel(vector_bytes=32, registers=16, masked_bytes=4)
    return CpuModel(vector_bytes=16, registers=16)
