"""Graphwright: a symbolic graph compiler for deep learning.

Declare a static graph of tensors, differentiate it, compile it for the CPU, run it, read its IR, and ship
it as one file::

    import graphwright as gw

    x = gw.placeholder("x", "float32", ("N", 784))
    W = gw.Variable(np.zeros((784, 10), np.float32), name="W")
    predict = gw.function([x], gw.argmax(x @ W, axis=-1))

Names are imported when first used: ``import graphwright`` loads neither the compiler nor NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import *  # noqa: F403
from .errors import __all__ as _ERRORS

if TYPE_CHECKING:
    from .frontends import debug as debug
    from .frontends import nn as nn
    from .frontends import optim as optim
    from .frontends import random as random
    from .frontends.array_api import *  # noqa: F403
    from .frontends.control import associative_scan as associative_scan
    from .frontends.control import cond as cond
    from .frontends.control import fori as fori
    from .frontends.control import map as map
    from .frontends.control import scan as scan
    from .frontends.control import switch as switch
    from .frontends.control import while_loop as while_loop
    from .frontends.debug import watch as watch
    from .frontends.derivatives import checkpoint as checkpoint
    from .frontends.derivatives import custom_gradient as custom_gradient
    from .frontends.derivatives import vjp as vjp
    from .frontends.extend import custom_op as custom_op
    from .frontends.extend import elementwise as elementwise
    from .frontends.extend import from_sympy as from_sympy
    from .frontends.function import Function as Function
    from .frontends.function import export as export
    from .frontends.function import function as function
    from .frontends.function import grad as grad
    from .frontends.jacobians import hessian as hessian
    from .frontends.jacobians import hvp as hvp
    from .frontends.jacobians import jacobian as jacobian
    from .frontends.jacobians import jvp as jvp
    from .frontends.profile import profile as profile
    from .frontends.tensor import Tensor as Tensor
    from .frontends.tensor import Variable as Variable
    from .frontends.tensor import placeholder as placeholder
    from .frontends.vmap import vmap as vmap
    from .ir.dtypes import float32 as float32
    from .ir.dtypes import float64 as float64
    from .ir.dtypes import int8 as int8
    from .ir.dtypes import int16 as int16
    from .ir.dtypes import int32 as int32
    from .ir.dtypes import int64 as int64
    from .ir.dtypes import uint8 as uint8
    from .ir.dtypes import uint16 as uint16
    from .ir.dtypes import uint32 as uint32
    from .ir.dtypes import uint64 as uint64
    from .runtime.artifact import load as load
    from .runtime.threads import get_num_threads as get_num_threads
    from .runtime.threads import set_num_threads as set_num_threads

__version__ = "0.1.0"

_DTYPES = "float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64"
_MODULES = {
    "frontends.control": "associative_scan cond fori map scan switch while_loop",
    "frontends.debug": "watch",
    "frontends.derivatives": "checkpoint custom_gradient vjp",
    "frontends.extend": "custom_op elementwise from_sympy",
    "frontends.function": "Function export function grad",
    "frontends.jacobians": "hessian hvp jacobian jvp",
    "frontends.profile": "profile",
    "frontends.tensor": "Tensor Variable placeholder",
    "frontends.vmap": "vmap",
    "ir.dtypes": _DTYPES,
    "runtime.artifact": "load",
    "runtime.threads": "get_num_threads set_num_threads",
}
_WHERE = {name: module for module, names in _MODULES.items() for name in names.split()}
_ARRAY_API = "frontends.array_api"  # everything else: its functions are made from the registry of ops
_ROOMS = ("debug", "nn", "optim", "random")
_CONSTANTS = {
    "e": 2.718281828459045, "inf": float("inf"), "nan": float("nan"), "newaxis": None, "pi": 3.141592653589793,
}


def __getattr__(name: str) -> Any:
    value: Any
    if name in _CONSTANTS:
        value = _CONSTANTS[name]
    elif name in _ROOMS:
        value = importlib.import_module(f".frontends.{name}", __name__)
    elif name == "bool":
        value = importlib.import_module(".ir.dtypes", __name__).bool_
    elif name in _WHERE:
        value = getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
    elif name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    else:
        module = importlib.import_module(f".{_ARRAY_API}", __name__)
        if name not in module.__all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    functions = importlib.import_module(f".{_ARRAY_API}", __name__).__all__
    return sorted({*globals(), *_ERRORS, *_WHERE, *_CONSTANTS, *functions, *_ROOMS, "bool"})
