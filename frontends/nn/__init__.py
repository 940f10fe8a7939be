"""Neural functions under PyTorch's functional names, argument order and NCHW / OIHW layouts.

All are composed of the ops of the registry, and differentiable as often as needed; the compiler fuses them.
"""

from . import activations, attention, convolution, losses, normalization, pooling
from .activations import *  # noqa: F403
from .attention import *  # noqa: F403
from .convolution import *  # noqa: F403
from .losses import *  # noqa: F403
from .normalization import *  # noqa: F403
from .pooling import *  # noqa: F403

__all__ = [
    *activations.__all__,
    *attention.__all__,
    *convolution.__all__,
    *losses.__all__,
    *normalization.__all__,
    *pooling.__all__,
]
