"""Random numbers: explicit keys, and generators that advance by themselves at each execution.

All numbers come from the counter-based generator Philox 4x32-10 (`ir.ops.random`): each is a pure function of a
key and its own position, whatever the number of threads, the machine, and the size of what is drawn beside it.
"""

from . import continuous, discrete, keys, ordering, rejection
from .continuous import *  # noqa: F403
from .discrete import *  # noqa: F403
from .generator import Generator
from .keys import *  # noqa: F403
from .ordering import *  # noqa: F403
from .rejection import *  # noqa: F403

__all__ = [
    "Generator",
    *continuous.__all__,
    *discrete.__all__,
    *keys.__all__,
    *ordering.__all__,
    *rejection.__all__,
]
