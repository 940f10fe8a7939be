"""The inverses of the normal distribution function and of the error function, in float64.

M. J. Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics 37
(1988), PPND16: three quotients of polynomials, about 16 digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["CENTRAL", "CENTRAL_LIMIT", "FAR", "MIDDLE", "MIDDLE_LIMIT", "erfinv", "ndtri"]

CENTRAL_LIMIT = 0.425
"""Up to this distance q of a probability from 1/2 the quantile is q times `CENTRAL` at ``0.425**2 - q**2``."""

MIDDLE_LIMIT = 5.0
"""Beyond, with p that or its complement and r = sqrt(-log p), it is `MIDDLE` at r - 1.6 up to this r, then `FAR` at
r - 5."""

Quotient = tuple[tuple[float, ...], tuple[float, ...]]

CENTRAL: Quotient = (
    (3.3871328727963666080, 133.14166789178437745, 1971.5909503065514427, 13731.693765509461125,
     45921.953931549871457, 67265.770927008700853, 33430.575583588128105, 2509.0809287301226727),
    (1.0, 42.313330701600911252, 687.18700749205790830, 5394.1960214247511077,
     21213.794301586595867, 39307.895800092710610, 28729.085735721942674, 5226.4952788528545610),
)  # fmt: skip
MIDDLE: Quotient = (
    (1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504,
     1.27045825245236838258, 0.241780725177450611770, 0.0227238449892691845833, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187, 1.67638483018380384940, 0.689767334985100004550,
     0.148103976427480074590, 0.0151986665636164571966, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip
FAR: Quotient = (
    (6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580, 0.296560571828504891230,
     0.0265321895265761230930, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 0.599832206555887937690, 0.136929880922735805310, 0.0148753612908506148525,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)  # fmt: skip


def _value(x: Any, quotient: Quotient) -> Any:
    def polynomial(coefficients: Sequence[float]) -> Any:
        return np.polynomial.polynomial.polyval(x, np.asarray(coefficients), tensor=False)

    return polynomial(quotient[0]) / polynomial(quotient[1])


def _quantile(q: Any, tail: Any) -> Any:
    """The quantile of the probability 1/2 + q, where `tail` is 1/2 - abs(q)."""
    with np.errstate(all="ignore"):
        r = np.sqrt(-np.log(tail))
        outer = np.where(r <= MIDDLE_LIMIT, _value(r - 1.6, MIDDLE), _value(np.minimum(r, 30) - 5, FAR))
        outer = np.where(tail == 0, np.inf, outer)
        central = q * _value(CENTRAL_LIMIT**2 - q * q, CENTRAL)
        return np.where(np.abs(q) <= CENTRAL_LIMIT, central, np.copysign(outer, q))


def ndtri(p: Any) -> Any:
    """The x below which a standard normal number lies with probability p."""
    dtype = np.asarray(p).dtype
    p = np.asarray(p, np.float64)
    return _quantile(p - 0.5, np.minimum(p, 1 - p)).astype(dtype)


def erfinv(x: Any) -> Any:
    """The y with ``erf(y) = x``."""
    dtype = np.asarray(x).dtype
    x = np.asarray(x, np.float64)
    return (_quantile(x / 2, (1 - np.abs(x)) / 2) * np.sqrt(0.5)).astype(dtype)
