"""What Graphwright finds on this machine: ``graphwright doctor``."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

__all__ = ["report"]


def report() -> list[tuple[str, str]]:
    """Rows of a name and what was found; a part that fails says so and does not hide the others."""
    return [(name, _guarded(find)) for name, find in _ROWS]


def _guarded(find: Callable[[], str]) -> str:
    try:
        return find()
    except Exception as e:
        return f"failed: {type(e).__name__}: {e}"


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _python() -> str:
    return f"{platform.python_version()} at {sys.executable}"


def _packages() -> str:
    return ", ".join(f"{name} {_package(name)}" for name in ("numpy", "sympy", "numba", "llvmlite"))


def _cpu() -> str:
    from ..compiler.target import host

    return f"{host().cpu}, {host().triple}"


def _features() -> str:
    from ..compiler.target import host

    target = host()
    return f"{', '.join(target.required_features) or 'none'}; vectors of {8 * target.model.vector_bytes} bits"


def _threads() -> str:
    from ..runtime.threads import get_num_threads

    return f"{get_num_threads()} (GRAPHWRIGHT_NUM_THREADS)"


def _llvm() -> str:
    import llvmlite.binding as llvm

    return ".".join(map(str, llvm.llvm_version_info))


def _cache() -> str:
    from ..compiler.cache import Cache

    info = Cache().info()
    return f"{info.directory}: {info.entries} entries, {info.nbytes / 1e6:.1f} MB (GRAPHWRIGHT_CACHE_DIR)"


def _linker() -> str:
    found = [path for path in map(shutil.which, ("cc", "zig")) if path]
    if find_spec("ziglang"):
        found.append(f"ziglang {_package('ziglang')}")
    return ", ".join(found) or "none (only needed for C libraries; pip install ziglang gives one)"


def _cuda() -> str:
    if _package("numba-cuda") == "not installed":
        return "numba-cuda is not installed (pip install 'graphwright[cuda]')"
    return f"numba-cuda {_package('numba-cuda')}"


def _ptxas() -> str:
    from ..compiler.cuda.ptx import find_ptxas

    path = find_ptxas()
    if path is None:
        return "none"
    said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    return f"{said.strip().splitlines()[-1]} at {path}"


def _device() -> str:
    if _package("numba-cuda") == "not installed":
        return "unknown"
    from numba import cuda

    if not cuda.is_available():
        return "none"
    device = cuda.get_current_device()
    name = device.name.decode() if isinstance(device.name, bytes) else device.name
    return f"{name}, compute capability {'.'.join(map(str, device.compute_capability))}"


_ROWS: list[tuple[str, Callable[[], str]]] = [
    ("graphwright", lambda: _package("graphwright")),
    ("python", _python),
    ("packages", _packages),
    ("cpu", _cpu),
    ("vector features", _features),
    ("threads", _threads),
    ("llvm", _llvm),
    ("cache", _cache),
    ("linker", _linker),
    ("cuda", _cuda),
    ("ptxas", _ptxas),
    ("gpu", _device),
]
