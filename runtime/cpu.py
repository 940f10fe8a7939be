"""What this machine's processor can do, in LLVM's words."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from functools import lru_cache

__all__ = ["host_flags", "missing_features", "same_machine"]

# Where Linux's name in /proc/cpuinfo is not LLVM's with "." and "-" replaced by "_".
_X86 = {
    "64bit": "lm",
    "avx512bf16": "avx512_bf16",
    "avx512bitalg": "avx512_bitalg",
    "avx512fp16": "avx512_fp16",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512vnni": "avx512_vnni",
    "avx512vp2intersect": "avx512_vp2intersect",
    "avx512vpopcntdq": "avx512_vpopcntdq",
    "avxvnni": "avx_vnni",
    "bmi": "bmi1",
    "crc32": "sse4_2",
    "evex512": "avx512f",
    "lzcnt": "abm",
    "pclmul": "pclmulqdq",
    "prfchw": "3dnowprefetch",
    "rdrnd": "rdrand",
    "sahf": "lahf_lm",
    "sha": "sha_ni",
    "sse3": "pni",
    "x87": "fpu",
}
_ARM = {
    "complxnum": "fcma",
    "crc": "crc32",
    "dotprod": "asimddp",
    "fp-armv8": "fp",
    "fp16fml": "asimdfhm",
    "fullfp16": "asimdhp",
    "jsconv": "jscvt",
    "lse": "atomics",
    "neon": "asimd",
    "rcpc": "lrcpc",
    "rdm": "asimdrdm",
}
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def _machine(name: str) -> str:
    return _MACHINES.get(name.lower(), name.lower())


@lru_cache(maxsize=1)
def host_flags() -> frozenset[str]:
    """The flags of the first processor in ``/proc/cpuinfo``; none where there is no such file."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
            for line in f:
                key, _, value = line.partition(":")
                if key.strip() in ("flags", "Features"):
                    return frozenset(value.split())
    except OSError:
        return frozenset()
    return frozenset()


def missing_features(features: Iterable[str]) -> list[str]:
    """Those of the features (LLVM's names, with or without ``+``) that this processor lacks."""
    names = _ARM if _machine(platform.machine()) == "aarch64" else _X86
    plain = [f.removeprefix("+") for f in features]
    return [f for f in plain if names.get(f, f.replace(".", "_").replace("-", "_")) not in host_flags()]


def same_machine(triple: str) -> bool:
    """Whether an LLVM triple names this architecture and operating system."""
    arch, *rest = triple.split("-")
    system = {"Darwin": ("darwin", "macos"), "Windows": ("windows", "win32")}.get(
        platform.system(), ("linux",)
    )
    return _machine(arch) == _machine(platform.machine()) and any(r.startswith(system) for r in rest)
