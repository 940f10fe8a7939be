"""Kernels as PTX and as machine code of a GPU, made without one: Numba's NVVM, and the wheel's ``ptxas``."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numba import from_dtype, types

from ...errors import CompileError
from .emit import Launch
from .functions import SIMULATED, cuda, refusals

__all__ = ["Assembled", "assemble", "compile_ptx", "find_ptxas"]


@dataclass(frozen=True)
class Assembled:
    """Machine code of one kernel, and what it needs: bytes spilled are registers that did not suffice."""

    cubin: bytes
    registers: int
    spill_stores: int
    spill_loads: int
    shared_bytes: int


def compile_ptx(function: Any, launch: Launch, capability: tuple[int, int] = (8, 0)) -> str:
    """The PTX of one launch's function, for a compute capability.

    Raises
    ------
    CompileError
        If Numba is simulating the device, or refuses the kernel of a custom op.
    """
    if SIMULATED:
        raise CompileError("Numba's CUDA simulator makes no PTX; unset NUMBA_ENABLE_CUDASIM")
    arrays = [types.Array(_element(b.dtype), 1 if launch.op is None else len(b.shape), "C") for b in launch.buffers]
    signature = (*arrays, *(types.int64 for _ in launch.symbols))
    with refusals(launch.function):
        ptx, _ = cuda.compile_ptx(function.py_func, signature, cc=capability)
    return str(ptx)


def _element(dtype: Any) -> Any:
    return types.boolean if dtype.is_bool else from_dtype(dtype.numpy)


def find_ptxas() -> str | None:
    """The ``ptxas`` of the wheel ``nvidia-cuda-nvcc-cu12`` or of an installed toolkit; None without one."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for path in (Path(folder) / "cuda_nvcc" / "bin" / "ptxas", Path(folder) / "cuda_nvcc" / "bin" / "ptxas.exe"):
            if path.is_file():
                return str(path)
    return shutil.which("ptxas")


def assemble(ptx: str, capability: tuple[int, int] = (8, 0)) -> Assembled:
    """Assemble PTX.

    Raises
    ------
    CompileError
        If there is no ``ptxas``, or it refuses the text; with what it said.
    """
    ptxas = find_ptxas()
    if ptxas is None:
        raise CompileError("ptxas was not found; pip install nvidia-cuda-nvcc-cu12 (the extra [cuda] has it)")
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        source.write_text(ptx)
        command = [ptxas, f"-arch=sm_{capability[0]}{capability[1]}", "-v", str(source), "-o", str(cubin)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CompileError(f"ptxas refused the kernel:\n{done.stdout}{done.stderr}")
        return _report(cubin.read_bytes(), done.stderr)


def _report(cubin: bytes, log: str) -> Assembled:
    def number(pattern: str) -> int:
        return sum(map(int, re.findall(pattern, log)))

    return Assembled(
        cubin, number(r"Used (\d+) registers"), number(r"(\d+) bytes spill stores"),
        number(r"(\d+) bytes spill loads"), number(r"(\d+) bytes smem"),
    )  # fmt: skip
