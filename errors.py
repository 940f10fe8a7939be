"""Every error that Graphwright raises on purpose: the one module that each room may import."""

from __future__ import annotations

__all__ = [
    "ArtifactError",
    "ArgumentError",
    "BoundsError",
    "CheckError",
    "CompileError",
    "DTypeError",
    "DifferentiationError",
    "DimensionError",
    "ExportError",
    "GraphError",
    "GraphwrightError",
    "IndexRangeError",
    "NumericError",
    "ParseError",
    "ShapeError",
    "UpdateError",
    "VerifyError",
]


class GraphwrightError(Exception):
    """Base of all errors raised on purpose by Graphwright.

    Attributes
    ----------
    reproducer : of a fault of the compiler itself, the path of a text that shows it again; otherwise None.
    """

    reproducer: str | None = None


class GraphError(GraphwrightError, ValueError):
    """A graph cannot be built: wrong attributes, duplicate names, a tensor used as a bool."""


class ShapeError(GraphError):
    """Operand shapes do not fit the op."""


class DTypeError(GraphError, TypeError):
    """Operand dtypes do not fit the op."""


class DimensionError(GraphError):
    """A symbolic dimension is unknown, contradicted, negative, or overflows."""


class IndexRangeError(GraphError, IndexError):
    """A static index or axis lies outside its dimension."""


class DifferentiationError(GraphError):
    """A gradient does not exist or was asked for wrongly."""


class UpdateError(GraphError):
    """An update or assignment targets the wrong thing or has the wrong type."""


class ArgumentError(GraphwrightError, TypeError):
    """A function was called with arguments that it cannot take."""


class VerifyError(GraphwrightError):
    """An IR is malformed: an internal fault of a pass, or a hand-written text."""


class ParseError(GraphwrightError, ValueError):
    """A text is not a program of the IR's language."""


class CompileError(GraphwrightError):
    """Code generation failed."""


class ExportError(GraphwrightError, OSError):
    """An artifact could not be written; the file that stood there is unchanged."""


class ArtifactError(GraphwrightError, ValueError):
    """An artifact is truncated, altered, of an unknown version, or for another machine."""


class NumericError(GraphwrightError, ArithmeticError):
    """Under ``debug="nan"``: an op makes a NaN or an infinity; no variable was updated."""


class CheckError(GraphwrightError):
    """Under ``debug="check"``: compiled code and the interpreter disagree; no variable was updated."""


class BoundsError(GraphwrightError, IndexError):
    """Under ``debug="bounds"``: generated code reaches outside a buffer; no variable was updated."""
