"""Array functions under the names of the Python Array API standard, one module per chapter of it.

What the standard leaves open follows NumPy. Results are symbolic: shapes and dtypes are known at once,
values when a compiled function runs.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..tensor import Tensor
from . import creation, elementwise, linear_algebra, manipulation, searching, statistical
from .creation import *  # noqa: F403
from .elementwise import *  # noqa: F403
from .linear_algebra import *  # noqa: F403
from .manipulation import *  # noqa: F403
from .searching import *  # noqa: F403
from .statistical import *  # noqa: F403

if TYPE_CHECKING:  # the functions that `elementwise` makes from the registry

    def __getattr__(name: str) -> Callable[..., Tensor]: ...


__all__ = [
    *creation.__all__,
    *elementwise.__all__,
    *linear_algebra.__all__,
    *manipulation.__all__,
    *searching.__all__,
    *statistical.__all__,
]
