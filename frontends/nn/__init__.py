"""Neural networks: functions and layers under PyTorch's names, argument order and NCHW / OIHW layouts.

The functions are composed of the ops of the registry, and differentiable as often as needed; the compiler fuses
them. The layers are modules, which hold variables and call the functions; `init` has their first values.
"""

from . import (
    activations,
    attention,
    convolution,
    init,
    layers,
    losses,
    module,
    normalization,
    norms,
    pooling,
    recurrent,
    regularization,
    transformer,
    tree,
)
from .activations import *  # noqa: F403
from .attention import *  # noqa: F403
from .convolution import *  # noqa: F403
from .layers import *  # noqa: F403
from .losses import *  # noqa: F403
from .module import *  # noqa: F403
from .normalization import *  # noqa: F403
from .norms import *  # noqa: F403
from .pooling import *  # noqa: F403
from .recurrent import *  # noqa: F403
from .regularization import *  # noqa: F403
from .transformer import *  # noqa: F403
from .tree import *  # noqa: F403

__all__ = [
    *activations.__all__,
    *attention.__all__,
    *convolution.__all__,
    *layers.__all__,
    *losses.__all__,
    *module.__all__,
    *normalization.__all__,
    *norms.__all__,
    *pooling.__all__,
    *recurrent.__all__,
    *regularization.__all__,
    *transformer.__all__,
    *tree.__all__,
    "init",
]
