"""Loads of the native entry from Python: words of its table, functions, and members of objects, as LLVM IR text."""

from __future__ import annotations

from ...runtime.native_call import API, HEAD

__all__ = ["DATA", "DTYPE", "FLAGS", "RANK", "SIZES", "TYPE", "VALUE", "at", "function", "head", "member"]

# Offsets in bytes, which `runtime.native_call.is_supported` checks.
TYPE, VALUE = 8, 16  # PyObject, PyFloatObject
DATA, RANK, SIZES, DTYPE, FLAGS = 16, 24, 32, 56, 64  # PyArrayObject


def at(name: str, base: str, words: object, kind: str = "i64") -> str:
    """Load a word of an array of words: ``%name = base[words]``."""
    return f"  %{name}.p = getelementptr i64, ptr %{base}, i64 {words}\n  %{name} = load {kind}, ptr %{name}.p, align 8"


def head(name: str, kind: str = "i64", field: str = "") -> str:
    """Load a field of the table."""
    return at(name, "table", HEAD.index(field or name), kind)


def function(name: str) -> str:
    """Load an address of the API."""
    return at(name, "api", API.index(name), "ptr")


def member(name: str, thing: str, offset: int, kind: str = "ptr") -> str:
    """Load a member of an object."""
    size = 4 if kind == "i32" else 8
    return (
        f"  %{name}.p = getelementptr i8, ptr %{thing}, i64 {offset}\n"
        f"  %{name} = load {kind}, ptr %{name}.p, align {size}"
    )
