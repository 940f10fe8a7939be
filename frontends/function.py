"""From tensors to functions: compile a graph, differentiate it, evaluate it once, export functions."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from ..errors import DimensionError, GraphError, GraphwrightError, UpdateError
from ..ir.broadcasting import same_type
from ..ir.graph import Graph, Value, make, topological
from ..ir.region import is_stand_in, substitute_values
from ..runtime.buffers import Cell
from ..runtime.structure import flatten, unflatten
from .interpreted import Interpreted
from .shapes import check_name, fail
from .source import located
from .tensor import Tensor, Variable, cell_of, successors, to_value

if TYPE_CHECKING:
    from ..compiler.tune import Tuned
    from .debug import Watched
    from .profile import Profile

__all__ = ["Function", "evaluate", "export", "function", "grad"]

TARGETS = ("cpu", "cuda", "interpreter")

Pairs = Mapping[Any, Any] | Iterable[tuple[Any, Any]] | None

observers: list[Callable[[Function], object]] = []
"""Called with each function that is made: so tools find the functions of a program that they run."""


_CALL = """Run it on arrays, given by position or by name.

Outputs come back as new arrays in the structure in which they were given to `gw.function`;
then the updates happen, all or none.

Raises
------
ArgumentError
    If an argument is missing or unknown, or its dtype or rank is wrong.
DimensionError
    If the shapes contradict each other, or are impossible for an op of the graph.
"""


class Function:
    """A compiled function of arrays; make it with `gw.function`.

    Attributes
    ----------
    name : its name.
    inputs : names of its arguments, in order.
    graph : the graph it was compiled from.
    cells : the memory of the variables it uses, in the order of ``graph.states``.
    compiled : the compiler's result.
    tuning : what a measured search found for its kernels (`compiler.tune.Tuned`), if there was one.
    """

    # A slot that the interpreter finds when an instance is called: no Python frame before the entry.
    __slots__ = {"__call__": _CALL, "__dict__": "", "__weakref__": ""}
    __call__: Callable[..., Any]

    def __init__(self, graph: Graph, cells: Sequence[Cell], compiled: Any) -> None:
        self.name = graph.name
        self.inputs = tuple(v.attrs["name"] for v in graph.inputs)
        self.graph, self.cells, self.compiled = graph, tuple(cells), compiled
        self._execute = compiled.executable
        self._watched: Mapping[str, Watched] = {}
        self.tuning: tuple[Tuned, ...] = ()
        for observe in observers:
            observe(self)

    @property
    def _execute(self) -> Any:
        """What a call runs."""
        return self._executable

    @_execute.setter
    def _execute(self, executable: Any) -> None:
        self._executable = executable
        self.__call__ = executable.__call__

    def ir(self, stage: str = "optimized") -> str:
        """The program as text at a stage: graph, optimized, program, loops; then llvm, asm for a CPU, or
        cuda, ptx for a GPU."""
        text: str = self.compiled.ir(stage)
        return text

    def passes(self) -> Any:
        """What each pass did: a list of `passes.manager.PassReport` (time, nodes before and after, rules that
        fired) that prints as a table. The passes run again for it, once."""
        return self._lowered("passes").recording.reports

    def diff(self, name: str) -> str:
        """What one pass changed, as a unified diff: ``fn.diff("fuse")``. The passes run again for it, once."""
        text: str = self._lowered("diff").recording.diff(name)
        return text

    def provenance(self) -> dict[str, Any]:
        """Which machine kernel computes which op of which source line, as a record for JSON (docs/provenance.md)."""
        self._lowered("provenance")
        record: dict[str, Any] = self.compiled.provenance()
        return record

    def _lowered(self, what: str) -> Any:
        if isinstance(self.compiled, Interpreted):
            fail(what, GraphError, f"function {self.name!r} is interpreted: no pass changed it, it has no kernel")
        return self.compiled.lowered

    @property
    def watched(self) -> Mapping[str, Watched]:
        """The values that are watched, by name (see `gw.watch`).

        Raises
        ------
        GraphError
            If the function was compiled without ``watch=``.
        """
        if not self._watched:
            raise GraphError(f"function {self.name!r} watches nothing; compile it with gw.function(..., watch=True)")
        return self._watched

    def profile(self, *args: Any, repeat: int = 20, **kwargs: Any) -> Profile:
        """Time, flops and bytes of each kernel and source line, over some calls with these arguments.

        The calls work on copies of the variables, so nothing is updated. To measure the calls of a
        program as it runs, use `gw.profile`.
        """
        from .profile import profile_call

        return profile_call(self, args, kwargs, repeat)

    def tune(self, *args: Any, time: str | float = "30s", **kwargs: Any) -> Function:
        """The same function with the schedules of its contractions that are fastest for these arguments.

        The calls work on copies of the variables. Choices are measured in the whole program, for about as long
        as `time` says, and remembered in the cache for this machine, the kernel and these sizes. Results keep
        their bits: no choice changes the order of a sum. ``print(*tuned.tuning, sep="\\n")`` shows what was found.

        Raises
        ------
        GraphError
            If `time` is no duration, or the function is interpreted.
        CompileError
            If it is not compiled for the CPU, or under a debugger.
        """
        from .tune import tune_call

        return tune_call(self, args, kwargs, time)

    def memory(self, **dims: int) -> Any:
        """Peak bytes of scratch memory for given symbolic dimensions; without any, the formula."""
        return self._execute.memory(**dims)

    def report(
        self,
        path: str | os.PathLike[str],
        profile: Sequence[Mapping[str, Any]] | None = None,
        dims: Mapping[str, int] | None = None,
    ) -> None:
        """Write an HTML page that shows the graph after each pass, the kernels with their code, and the memory.

        Parameters
        ----------
        path : the file; it needs no other, and no network.
        profile : measured rows ``{"kernel", "seconds", "calls", "flops", "bytes"}``; the first two are needed.
        dims : values of symbolic dimensions at which memory is shown first (default: 64 each).

        Raises
        ------
        GraphError
            If the profile names an unknown kernel, or `dims` an unknown dimension.
        """
        from .report import subject_of, write_report

        write_report(path, subject_of(self), profile, dims)

    def __repr__(self) -> str:
        signature = ", ".join(f"{v.attrs['name']}: {v.type}" for v in self.graph.inputs)
        return f"<Function {self.name}({signature}) -> ({', '.join(str(v.type) for v in self.graph.outputs)})>"


@located
def function(
    inputs: Sequence[Tensor] | Mapping[str, Tensor],
    outputs: Any = None,
    updates: Pairs = None,
    givens: Pairs = None,
    name: str | None = None,
    target: str = "cpu",
    debug: str | None = None,
    watch: bool | str | Mapping[str, Tensor] = False,
    tune: str | float | None = None,
    **options: Any,
) -> Function:
    """Compile a function of arrays from tensors.

    Parameters
    ----------
    inputs : placeholders, in the order of the arguments; or a dict that gives the arguments' names.
    outputs : a tensor, None, or lists, tuples and dicts of them, nested in any way.
    updates : from variables to their new values (a dict or pairs). They are computed from the old
        values and assigned together, after the outputs. A `gw.random.Generator` that is drawn from advances
        by itself.
    givens : from tensors of the graph to the tensors to use in their place, of the same type.
    name : shown in IR text and messages.
    target : ``"cpu"``; ``"cuda"``, a GPU by way of numba.cuda (the extra ``[cuda]``), which keeps the variables
        in its memory between calls; or ``"interpreter"``, which runs the reference semantics in NumPy.
    debug : ``"nan"`` stops at the first op that makes a NaN or an infinity; ``"check"`` compares every kernel
        with the interpreter; ``"bounds"`` guards every load and store of generated code. A call that is
        stopped updates nothing. All three are slow; for the CPU.
    watch : True to record the tensors named with `gw.watch` in ``fn.watched`` at each call, ``"print"`` to print
        them too, or a dict from names to tensors.
    tune : how long to measure schedules, such as ``"30s"``, on random arguments with symbolic dimensions of 64;
        `Function.tune` takes arguments of one's own. What the cache remembers is not measured again.
    options : passed on to the compiler (`compiler.driver.compile_graph`).

    Raises
    ------
    GraphError
        If an input is not a placeholder or stands twice, two inputs have one name, an output is no
        tensor, or the graph needs a placeholder that is not an input.
    UpdateError
        If an update's target is no variable or has two updates, or the new value has another type.
    DimensionError
        If a symbolic dimension is not one of an input or variable.
    """
    name = "f" if name is None else check_name(name, "function")
    arguments = _inputs(inputs)
    leaves, structure = _outputs(outputs)
    changes = _updates(updates)
    watched = _watched(watch, [*leaves, *(new for _, new in changes)])
    roots = substitute_values([*leaves, *watched.values(), *(new for _, new in changes)], _givens(givens))
    updated = {target: None for target, _ in changes}
    advancing = [(v, new) for v, new in successors(topological(roots)) if v not in updated]
    roots += [new for _, new in advancing]
    graph, cells = _build(name, arguments, roots, [*updated, *(v for v, _ in advancing)])
    if debug is not None:
        options["debug"] = debug
    if not watched:
        return _finished(graph, cells, structure, target, options, tune)
    flat = ["list", *["*"] * len(graph.outputs)]
    compiled = _finished(graph, cells, flat, target, options, tune)
    return _watching(compiled, structure, list(watched), watch == "print")


def _finished(
    graph: Graph, cells: Sequence[Cell], structure: Any, target: str, options: dict[str, Any], tune: str | float | None
) -> Function:
    if tune is None:
        return Function(graph, cells, _compile(graph, cells, structure, target, options))
    from .tune import duration, tuned_for_sizes

    seconds = duration(tune)
    compiled, found = tuned_for_sizes(graph, _compile(graph, cells, structure, target, options), seconds)
    function = Function(graph, cells, compiled)
    function.tuning = tuple(found)
    return function


def _watched(watch: object, roots: Sequence[Value]) -> dict[str, Value]:
    """The values that are to be watched, by name."""
    if watch is False or watch is None:
        return {}
    from .debug import watched_values

    return watched_values(watch, roots)


def _watching(compiled: Function, structure: Any, names: Sequence[str], printing: bool) -> Function:
    """The function whose last outputs are kept to be looked at, instead of returned."""
    from .debug import WatchedExecutable

    compiled._execute = WatchedExecutable(compiled._execute, structure, names, printing)
    compiled._watched = compiled._execute.watched
    return compiled


def _compile(graph: Graph, cells: Sequence[Cell], structure: Any, target: str, options: dict[str, Any]) -> Any:
    if "debug" in options:
        return _debugged(graph, cells, structure, target, **options)
    if target == "interpreter":
        if options:
            fail("function", GraphError, f"the interpreter has no option {sorted(options)[0]!r}")
        return Interpreted(graph, cells, structure)
    if target not in TARGETS:
        fail("function", GraphError, f"target must be {' or '.join(map(repr, TARGETS))}, got {target!r}")
    from ..compiler.driver import compile_graph

    known = ("optimize", "prepare", "dump", "target")
    if unknown := sorted(set(options) - {*known}):
        advice = "options are optimize, prepare and dump"
        fail("function", GraphError, f"there is no option {unknown[0]!r}", advice=advice)
    if target == "cuda":
        from ..compiler.target import CudaTarget

        options = {"target": CudaTarget(), **options}
    return compile_graph(graph, cells, structure=structure, **options)


def _debugged(graph: Graph, cells: Sequence[Cell], structure: Any, target: str, debug: str, **options: Any) -> Any:
    if target != "cpu":
        fail("function", GraphError, f"debug={debug!r} is for the target 'cpu', not {target!r}")
    if options:
        fail("function", GraphError, f"with debug={debug!r} there is no option {sorted(options)[0]!r}")
    from ..compiler.debug import debug_graph

    return debug_graph(graph, cells, structure, debug)


# --- what users pass -----------------------------------------------------------------------------


def _inputs(inputs: Any) -> list[tuple[str, Value]]:
    """The arguments' names with their placeholders."""
    if isinstance(inputs, Tensor) or not isinstance(inputs, Iterable):
        fail("function", GraphError, "inputs must be a list or a dict of placeholders", [inputs])
    items = list(inputs.items()) if isinstance(inputs, Mapping) else [(None, x) for x in inputs]
    result: list[tuple[str, Value]] = []
    for given, x in items:
        if not isinstance(x, Tensor) or x._value.op.name != "input":
            shown = f"a {type(x).__name__}" if not isinstance(x, Tensor) else repr(x)
            advice = (
                "a variable is shared by all functions, do not pass it" if isinstance(x, Variable)
                else "list placeholders, and replace other tensors with givens"
            )
            fail("function", GraphError, f"an input must be a placeholder, got {shown}", [x], advice)
        name = x._value.attrs["name"] if given is None else check_name(given, "function")
        for other, value in result:
            if value is x._value:
                fail("function", GraphError, f"placeholder {x._value.attrs['name']!r} stands twice in the inputs", [x])
            if other == name:
                fail(
                    "function", GraphError, f"two inputs are named {name!r}", [value, x],
                    "give the placeholders different names, or pass a dict of names to placeholders",
                )
        result.append((name, x._value))
    return result


def _outputs(outputs: Any) -> tuple[list[Value], Any]:
    """The values of outputs, and how they are nested."""
    try:
        leaves, structure = flatten(outputs)
    except GraphwrightError as error:
        fail("function", GraphError, str(error))
    return [_output(x) for x in leaves], structure


def _output(x: Any) -> Value:
    if isinstance(x, (tuple, dict, str, bytes, Function)):
        fail(
            "function", GraphError, f"an output cannot be of type {type(x).__name__}",
            advice="outputs are tensors in lists, tuples and dicts with string keys",
        )
    try:
        return to_value(x)
    except GraphwrightError as error:
        fail("function", GraphError, f"an output of type {type(x).__name__} is no tensor: {error}")


def _pairs(what: str, given: Pairs) -> Iterator[tuple[Any, Any]]:
    for item in given.items() if isinstance(given, Mapping) else given or ():
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            fail("function", GraphError, f"{what} must be a dict or a list of pairs, got {item!r}")
        yield item[0], item[1]


def _updates(updates: Pairs) -> list[tuple[Value, Value]]:
    result: dict[Value, Value] = {}
    for target, new in _pairs("updates", updates):
        if not isinstance(target, Variable):
            shown = repr(target) if isinstance(target, Tensor) else f"a {type(target).__name__}"
            fail(
                "function", UpdateError, f"only a Variable can be updated, got {shown}", [target],
                "keep what changes in gw.Variable(initial_value)",
            )
        if target._value in result:
            fail("function", UpdateError, f"variable {target.name!r} has two updates", [target])
        value = to_value(new, target.dtype)
        if not same_type(value.tensor, target._value.tensor):
            fail(
                "function", UpdateError,
                f"variable {target.name!r} is {target._value.type}, its update is {value.type}", [target, value],
                "the new value must have the variable's dtype and shape",
            )
        result[target._value] = value
    return list(result.items())


def _givens(givens: Pairs) -> dict[Value, Value]:
    result: dict[Value, Value] = {}
    for old, new in _pairs("givens", givens):
        if not isinstance(old, Tensor):
            fail("function", GraphError, f"givens replace tensors, got a {type(old).__name__}")
        value = to_value(new, old.dtype)
        if not same_type(value.tensor, old._value.tensor):
            fail(
                "function", GraphError, f"a given must have the type of what it replaces: {old._value.type}, "
                f"got {value.type}", [old, value],
            )
        if old._value in result:
            fail("function", GraphError, "a tensor is given twice", [old])
        result[old._value] = value
    return result


# --- the graph -----------------------------------------------------------------------------------


def _build(
    name: str, arguments: list[tuple[str, Value]], roots: list[Value], updated: list[Value],
) -> tuple[Graph, list[Cell]]:
    """The graph, its inputs and states under the names that users gave them, and the states' memory."""
    order = topological([*roots, *updated])
    states = [v for v in order if v.op.name == "state"]
    _check_inputs(arguments, order)
    names = dict(_renamed(v, n) for n, v in arguments)
    names |= dict(_renamed(v, n) for v, n in zip(states, _unique(cell_of(v).name for v in states)))
    roots = substitute_values(roots, {old: new for old, new in names.items() if old is not new})
    outputs = roots[:len(roots) - len(updated)]
    graph = Graph(
        name, tuple(names[v] for _, v in arguments), tuple(names[v] for v in states), tuple(outputs),
        tuple(zip([names[v] for v in updated], roots[len(outputs):])),
    )
    _check_symbols(graph)
    return graph, [cell_of(v) for v in states]


def _renamed(value: Value, name: str) -> tuple[Value, Value]:
    if value.attrs["name"] == name:
        return value, value
    return value, make(value.op, (), {**value.attrs, "name": name}, loc=value.locs)


def _unique(names: Iterable[str]) -> list[str]:
    """The names, those that stood before with a number added."""
    result: dict[str, None] = {}
    for name in names:
        number, candidate = 0, name
        while candidate in result:
            number += 1
            candidate = f"{name}_{number}"
        result[candidate] = None
    return list(result)


def _check_inputs(arguments: list[tuple[str, Value]], order: Sequence[Value]) -> None:
    listed = {v for _, v in arguments}
    for value in order:
        if is_stand_in(value):
            fail(
                "function", GraphError, "a tensor belongs to the body of a loop or branch, and was used outside of it",
                [value], "let the body return it",
            )
        if value.op.name == "input" and value not in listed:
            name = value.attrs["name"]
            known = ", ".join(n for n, _ in arguments) or "none"
            fail(
                "function", GraphError, f"placeholder {name!r} is needed but not among the inputs ({known})", [value],
                f"add it to the inputs, or replace it with givens={{{name}: tensor}}",
            )


def _with_regions(graph: Graph) -> Iterator[Value]:
    for value in graph:
        for region in value.regions:
            yield from _with_regions(region)
        yield value


def _check_symbols(graph: Graph) -> None:
    known = set(graph.symbols)
    for value in _with_regions(graph):
        for name in sorted(value.symbols - known):
            fail(
                "function", DimensionError, f"dimension {name} is not one of an input or a variable", [value],
                f"known dimensions: {', '.join(sorted(known)) or 'none'}; use x.shape[axis] of an input",
            )


# --- gradients, evaluation, export ---------------------------------------------------------------


@located
def grad(
    loss: Tensor, wrt: Any, cotangent: Any = None, disconnected: Literal["raise", "zero"] = "raise",
) -> Any:
    """The gradient of a scalar by tensors, as more tensors of the graph: it can be differentiated again.

    Parameters
    ----------
    loss : a floating-point tensor without axes; of any shape if a cotangent is given.
    wrt : a tensor (placeholder, variable, or intermediate), or a list, tuple or dict of tensors.
    cotangent : of the loss's type; the result is then its product with the Jacobian.
    disconnected : ``"raise"`` or ``"zero"``, for a tensor that the loss does not depend on.

    Returns
    -------
    One tensor for each in `wrt`, of its type, in the same structure.

    Raises
    ------
    DifferentiationError
        If the loss is no floating-point scalar, an op on the way has no derivative, or a tensor is
        not floating-point or is disconnected.
    """
    from ..passes.differentiate import gradients
    from ..passes.stabilize import stabilize_values

    if disconnected not in ("raise", "zero"):
        fail("grad", GraphError, f"disconnected must be 'raise' or 'zero', got {disconnected!r}")
    leaves, structure = flatten(wrt)
    for x in (loss, *leaves):
        if not isinstance(x, Tensor):
            fail("grad", GraphError, f"differentiates tensors by tensors, got a {type(x).__name__}")
    values = [x._value for x in leaves]
    seed = None if cotangent is None else to_value(cotangent, loss.dtype)
    found = gradients(
        loss._value, values, seed, disconnected, prepare=lambda value: stabilize_values([value], keep=values)[0],
    )
    return unflatten(structure, [Tensor(v) for v in found])


_evaluations: OrderedDict[tuple[Value, ...], Function] = OrderedDict()
_KEPT = 16


@located
def evaluate(tensor: Tensor, feeds: Mapping[Tensor, Any], target: str = "cpu") -> Any:
    """The value of a tensor for arrays of its placeholders; the last few functions compiled are kept."""
    key = (tensor._value, *(x._value for x in feeds if isinstance(x, Tensor)))
    compiled = _evaluations.get(key)
    if compiled is None or target != "cpu":
        compiled = function(list(feeds), tensor, name="eval", target=target)
    if target == "cpu":
        _evaluations[key] = compiled
        _evaluations.move_to_end(key)
        if len(_evaluations) > _KEPT:
            _evaluations.popitem(last=False)
    return compiled(*feeds.values())


@located
def export(path: str | os.PathLike[str], functions: Mapping[str, Function], **options: Any) -> None:
    """Write functions and the variables they share into one file that `gw.load` opens without the compiler.

    Parameters
    ----------
    path : the file, by convention ``*.gwa``.
    functions : from entry point names to functions.

    Raises
    ------
    ExportError
        If the file cannot be written; one that stood there is unchanged.
    GraphError
        If an entry is no compiled function, or a name is no identifier.
    """
    from ..compiler.export import write_artifact

    if not isinstance(functions, Mapping) or not functions:
        fail("export", GraphError, "needs a dict of names to functions")
    for name, compiled in functions.items():
        check_name(name, "export")
        if not isinstance(compiled, Function) or isinstance(compiled.compiled, Interpreted):
            fail("export", GraphError, f"entry {name!r} is not a compiled function", advice="make it with gw.function")
        if compiled._watched:
            fail("export", GraphError, f"entry {name!r} watches values", advice="compile it without watch=")
        _check_variables(compiled)
    write_artifact(path, {name: f.compiled.entry() for name, f in functions.items()}, **options)


def _check_variables(compiled: Function) -> None:
    names = [cell.name for cell in compiled.cells]
    for name in names:
        if names.count(name) > 1:
            fail(
                "export", GraphError, f"function {compiled.name!r} uses two variables named {name!r}",
                advice="an artifact finds variables by name: give them different ones (layers: by layer.named)",
            )
