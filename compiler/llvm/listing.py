"""The code of each kernel by itself, to be read: kernels are kept from being inlined into the program."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ...ir.loops import Kernel
from ..target import CpuTarget
from .codegen import parse
from .foreign import link_foreign

__all__ = ["kernel_listings"]

_HEADER = re.compile(r"^(define internal void @([\w.]+)\(.*\) #0)", re.MULTILINE)
_LABEL = re.compile(r'^"?_?([\w.]+)"?:')
_BODY = re.compile(r"\.body\d+$")  # a parallel loop's body is a function of its own


def kernel_listings(module: str, kernels: Iterable[Kernel], target: CpuTarget) -> dict[str, dict[str, str]]:
    """LLVM IR after LLVM's passes, and assembly: ``{"llvm": {kernel: text}, "asm": {kernel: text}}``.

    Parameters
    ----------
    module : the program's LLVM module before LLVM's passes.
    kernels : its kernels.
    """
    kernels = tuple(kernels)
    names = {k.name for k in kernels}

    def keep(found: re.Match[str]) -> str:
        return found[1] + " noinline" if found[2] in names else found[0]

    compiled = link_foreign(parse(_HEADER.sub(keep, module), target), kernels).optimize()
    functions = [(f.name, str(f)) for f in compiled.module.functions if not f.is_declaration]
    return {
        "llvm": _by_kernel(functions, names),
        "asm": _by_kernel(_assembly(compiled.assembly(), {name for name, _ in functions}), names),
    }


def _by_kernel(functions: Iterable[tuple[str, str]], names: set[str]) -> dict[str, str]:
    texts: dict[str, list[str]] = {}
    for name, text in functions:
        owner = name if name in names else _BODY.sub("", name)
        if owner in names:
            texts.setdefault(owner, []).append(text.strip("\n"))
    return {name: "\n\n".join(parts) + "\n" for name, parts in texts.items()}


def _assembly(text: str, names: set[str]) -> Iterator[tuple[str, str]]:
    """The functions of assembly, each from its label to its end."""
    current, lines = "", [""]
    for line in text.splitlines():
        label = _LABEL.match(line)
        if label and label[1] in names:
            current, lines = label[1], []
        elif current and line.lstrip(".").startswith("Lfunc_end"):
            yield current, "\n".join(lines)
            current = ""
        if current:
            lines.append(line)
