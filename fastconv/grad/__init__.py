"""Gradients of the convolutions and of pooling, and the gradients of the convolutions' gradients."""

from . import convolution, pooling, transposed
from .convolution import *  # noqa: F403
from .pooling import *  # noqa: F403
from .transposed import *  # noqa: F403

__all__ = [*convolution.__all__, *pooling.__all__, *transposed.__all__]
