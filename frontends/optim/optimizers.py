"""The optimizers, each a rule for one parameter."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Union

import numpy as np

from ...errors import GraphError, ShapeError
from ..array_api import astype, maximum, sqrt, sum, where
from ..array_api import expm1 as _expm1
from ..function import grad
from ..shapes import fail
from ..source import located
from ..tensor import Tensor, Variable

__all__ = ["LAMB", "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "NAdam", "Optimizer", "RMSprop"]

Rate = Union[float, Tensor, Callable[[Tensor], Tensor]]
Slots = dict[str, Tensor]


class Optimizer:
    """What all optimizers share.

    Parameters
    ----------
    learning_rate : a number; a tensor, such as a placeholder or a variable; or a schedule, a function from the
        number of steps done (int64) to the rate (see `gw.optim.cosine`).
    weight_decay : this times the parameter is added to its gradient.

    Attributes
    ----------
    steps : how many steps were done, a variable of int64; only of those whose rule or schedule needs it.
    state : all variables of the optimizer by name, for saving.
    """

    slots: tuple[str, ...] = ()  # the rule's variables for each parameter, of its shape, zeros at first
    counts = False  # whether the rule needs the number of steps

    def __init__(self, learning_rate: Rate, weight_decay: float = 0.0) -> None:
        _at_least(type(self).__name__, weight_decay=weight_decay)
        if isinstance(learning_rate, (int, float)):
            _at_least(type(self).__name__, learning_rate=learning_rate)
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.steps: Variable | None = None
        self._slots: dict[Variable, dict[str, Variable]] = {}

    @located
    def updates(self, loss: Tensor | Sequence[Tensor], parameters: Sequence[Variable]) -> dict[Variable, Tensor]:
        """One step: the new values of the parameters and of the optimizer's own variables.

        Parameters
        ----------
        loss : a scalar, which is differentiated; or the gradients, one for each parameter.
        parameters : the variables to train.

        Raises
        ------
        GraphError
            If a parameter is no variable or stands twice.
        ShapeError
            If a gradient has another shape than its parameter, or there are not as many.
        """
        name, parameters = type(self).__name__, list(parameters)
        for k, p in enumerate(parameters):
            if not isinstance(p, Variable):
                fail(name, GraphError, f"parameter {k} is no variable", [p] if isinstance(p, Tensor) else [])
            if any(p is other for other in parameters[:k]):
                fail(name, GraphError, f"variable {p.name!r} stands twice among the parameters", [p])
        gradients = grad(loss, parameters) if isinstance(loss, Tensor) else list(loss)
        if len(gradients) != len(parameters):
            fail(name, ShapeError, f"{len(gradients)} gradients for {len(parameters)} parameters")
        result: dict[Variable, Tensor] = {}
        done = self._done() if self.counts or callable(self.learning_rate) else None
        for p, g in zip(parameters, gradients):
            if g.shape != p.shape:
                fail(name, ShapeError, f"the gradient of variable {p.name!r} has another shape", [p, g])
            result.update(self._update(p, g, done))
        if self.steps is not None and done is not None:
            result[self.steps] = done + 1
        return result

    @property
    def state(self) -> dict[str, Variable]:
        own = {v.name: v for slots in self._slots.values() for v in slots.values()}
        return own if self.steps is None else {"steps": self.steps, **own}

    def rule(self, p: Tensor, g: Tensor, s: Slots, rate: Tensor | float, t: Tensor | None) -> tuple[Tensor, Slots]:
        """The new parameter and slots, from the parameter, its gradient, the slots, and the number of this step."""
        raise NotImplementedError

    def initial(self, slot: str) -> float:
        """The first value of a slot."""
        return 0.0

    def decayed(self, p: Tensor, g: Tensor) -> Tensor:
        """The gradient with the weight decay in it."""
        return g + self.weight_decay * p if self.weight_decay else g

    def _done(self) -> Variable:
        if self.steps is None:
            self.steps = Variable(np.zeros((), np.int64), name="steps")
        return self.steps

    def _rate(self, p: Variable, done: Tensor | None) -> Tensor | float:
        if isinstance(self.learning_rate, Tensor):
            return astype(self.learning_rate, p.dtype)
        if callable(self.learning_rate):
            assert done is not None
            return astype(self.learning_rate(done), p.dtype)
        return self.learning_rate

    def _update(self, p: Variable, g: Tensor, done: Tensor | None) -> dict[Variable, Tensor]:
        if p not in self._slots:
            like = p.value
            self._slots[p] = {
                s: Variable(np.full_like(like, self.initial(s)), name=f"{p.name}_{s}") for s in self.slots
            }
        slots = self._slots[p]
        t = None if done is None or not self.counts else astype(done + 1, p.dtype)
        new, changed = self.rule(p, g, dict(slots), self._rate(p, done), t)
        return {p: new, **{slots[name]: value for name, value in changed.items()}}


def _at_least(name: str, least: float = 0.0, **values: float) -> None:
    for key, value in values.items():
        if not value >= least:
            fail(name, GraphError, f"{key} must be at least {least:g}, got {value!r}")


def _fractions(name: str, **values: float) -> None:
    for key, value in values.items():
        if not 0 <= value < 1:
            fail(name, GraphError, f"{key} must be in [0, 1), got {value!r}")


def _complement(beta: float, t: Tensor) -> Tensor:
    """``1 - beta**t``, without the cancellation that float32 would suffer for a beta near 1."""
    return -_expm1(t * math.log(beta)) if beta else 0 * t + 1


class SGD(Optimizer):
    """``v = momentum*v + g; p -= learning_rate*v``; with `nesterov`, ``p -= learning_rate*(g + momentum*v)``."""

    def __init__(
        self, learning_rate: Rate, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        _at_least("SGD", momentum=momentum)
        if nesterov and not momentum:
            fail("SGD", GraphError, "nesterov needs a momentum", advice="give momentum=0.9, for one")
        self.momentum, self.nesterov = momentum, nesterov
        self.slots = ("velocity",) if momentum else ()

    def rule(self, p: Tensor, g: Tensor, s: Slots, rate: Tensor | float, t: Tensor | None) -> tuple[Tensor, Slots]:
        g = self.decayed(p, g)
        if not self.momentum:
            return p - rate * g, {}
        v = self.momentum * s["velocity"] + g
        return p - rate * (g + self.momentum * v if self.nesterov else v), {"velocity": v}


class Adagrad(Optimizer):
    """Duchi, Hazan, Singer (2011): each element's rate falls with the sum of its squared gradients."""

    slots = ("sum",)

    def __init__(
        self, learning_rate: Rate = 0.01, rate_decay: float = 0.0, initial_accumulator: float = 0.0,
        eps: float = 1e-10, weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(learning_rate, weight_decay)
        _at_least("Adagrad", rate_decay=rate_decay, initial_accumulator=initial_accumulator, eps=eps)
        self.rate_decay, self.accumulator, self.eps = rate_decay, initial_accumulator, eps
        self.counts = bool(rate_decay)

    def initial(self, slot: str) -> float:
        return self.accumulator

    def rule(self, p: Tensor, g: Tensor, s: Slots, rate: Tensor | float, t: Tensor | None) -> tuple[Tensor, Slots]:
        g = self.decayed(p, g)
        total = s["sum"] + g * g
        if t is not None:
            rate = rate / (1 + (t - 1) * self.rate_decay)
        return p - rate * g / (sqrt(total) + self.eps), {"sum": total}


class Adadelta(Optimizer):
    """Zeiler (2012), arXiv:1212.5701: steps in the units of the parameter."""

    slots = ("square", "delta")

    def __init__(
        self, learning_rate: Rate = 1.0, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0.0
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        _fractions("Adadelta", rho=rho)
        _at_least("Adadelta", eps=eps)
        self.rho, self.eps = rho, eps

    def rule(self, p: Tensor, g: Tensor, s: Slots, rate: Tensor | float, t: Tensor | None) -> tuple[Tensor, Slots]:
        g = self.decayed(p, g)
        square = self.rho * s["square"] + (1 - self.rho) * g * g
        step = sqrt(s["delta"] + self.eps) / sqrt(square + self.eps) * g
        delta = self.rho * s["delta"] + (1 - self.rho) * step * step
        return p - rate * step, {"square": square, "delta": delta}


class RMSprop(Optimizer):
    """Tieleman, Hinton (2012); `centered` as by Graves (2013), arXiv:1308.0850."""

    def __init__(
        self, learning_rate: Rate = 0.01, alpha: float = 0.99, eps: float = 1e-8, momentum: float = 0.0,
        centered: bool = False, weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(learning_rate, weight_decay)
        _fractions("RMSprop", alpha=alpha)
        _at_least("RMSprop", eps=eps, momentum=momentum)
        self.alpha, self.eps, self.momentum, self.centered = alpha, eps, momentum, centered
        self.slots = ("square", *["mean"] * centered, *["velocity"] * bool(momentum))

    def rule(self, p: Tensor, g: Tensor, s: Slots, rate: Tensor | float, t: Tensor | None) -> tuple[Tensor, Slots]:
        g, a = self.decayed(p, g), self.alpha
        new = {"square": a * s["square"] + (1 - a) * g * g}
        spread = new["square"]
        if self.centered:
            new["mean"] = a * s["mean"] + (1 - a) * g
            spread = spread - new["mean"] * new["mean"]
        step = g / (sqrt(spread) + self.eps)
        if self.momentum:
            step = new["velocity"] = self.momentum * s["velocity"] + step
        return p - rate * step, new


class Adam(Optimizer):
    """Kingma, Ba (2015), arXiv:1412.6980; `amsgrad` as by Reddi, Kale, Kumar (2018)."""

    counts = True

    def __init__(
        self, learning_rate: Rate = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0, amsgrad: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(learning_rate, weight_decay)
        name = type(self).__name__
        _fractions(name, beta1=betas[0], beta2=betas[1])
        _at_least(name, eps=eps)
        self.betas, self.eps, self.amsgrad = betas, eps, amsgrad
        self.slots = ("mean", "square", *["largest"] * amsgrad)

    def moments(self, g: Tensor, s: Slots) -> Slots:
        """The running mean of the gradient and of its square; with `amsgrad` the largest of the latter."""
        b1, b2 = self.betas
        new = {"mean": b1 * s["mean"] + (1 - b1) * g, "square": b2 * s["square"] + (1 - b2) * g * g}
        if self.amsgrad:
            new["largest"] = maximum(s["largest"], new["square"])
        return new

    def deviation(self, new: Slots, t: Tensor) -> Tensor:
        """The root of the unbiased mean square."""
        square = new["largest" if self.amsgrad else "square"]
        return sqrt(square) / sqrt(_complement(self.betas[1], t)) + self.eps

    def rule(self, p: Tensor, g: Tensor, s: Slots, rate: Tensor | float, t: Tensor | None) -> tuple[Tensor, Slots]:
        assert t is not None
        new = self.moments(self.decayed(p, g), s)
        step = rate / _complement(self.betas[0], t)
        return p - step * (new["mean"] / self.deviation(new, t)), new


class AdamW(Adam):
    """Adam whose weight decay is not part of the gradient: Loshchilov, Hutter (2019), arXiv:1711.05101."""

    def __init__(
        self, learning_rate: Rate = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.01, amsgrad: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(learning_rate, betas, eps, weight_decay, amsgrad)

    def rule(self, p: Tensor, g: Tensor, s: Slots, rate: Tensor | float, t: Tensor | None) -> tuple[Tensor, Slots]:
        return super().rule(p * (1 - rate * self.weight_decay), g, s, rate, t)

    def decayed(self, p: Tensor, g: Tensor) -> Tensor:
        return g


class NAdam(Adam):
    """Adam with Nesterov's momentum: Dozat (2016)."""

    def __init__(
        self, learning_rate: Rate = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0, momentum_decay: float = 4e-3,
    ) -> None:  # fmt: skip
        super().__init__(learning_rate, betas, eps, weight_decay)
        _at_least("NAdam", momentum_decay=momentum_decay)
        self.momentum_decay = momentum_decay
        self.slots = ("mean", "square", "product")

    def initial(self, slot: str) -> float:
        return 1.0 if slot == "product" else 0.0

    def rule(self, p: Tensor, g: Tensor, s: Slots, rate: Tensor | float, t: Tensor | None) -> tuple[Tensor, Slots]:
        assert t is not None
        g = self.decayed(p, g)
        new = self.moments(g, s)
        here, next_ = (self.betas[0] * (1 - 0.5 * 0.96 ** (n * self.momentum_decay)) for n in (t, t + 1))
        product = s["product"] * here
        step = (1 - here) / (1 - product) * g + next_ / (1 - product * next_) * new["mean"]
        return p - rate * step / self.deviation(new, t), {**new, "product": product}


class LAMB(AdamW):
    """You et al. (2020), arXiv:1904.00962: AdamW whose steps are as long as the parameter, times the rate."""

    def __init__(
        self, learning_rate: Rate = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:  # fmt: skip
        super().__init__(learning_rate, betas, eps, weight_decay)

    def rule(self, p: Tensor, g: Tensor, s: Slots, rate: Tensor | float, t: Tensor | None) -> tuple[Tensor, Slots]:
        assert t is not None
        new = self.moments(g, s)
        step = new["mean"] / _complement(self.betas[0], t) / self.deviation(new, t) + self.weight_decay * p
        long, wide = (sqrt(sum(x * x)) for x in (p, step))
        trust = where((long > 0) & (wide > 0), long / where(wide > 0, wide, 1), 1)
        return p - rate * trust * step, new


