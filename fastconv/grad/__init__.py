"""Gradients of the convolutions and of pooling, and the gradients of the convolutions' gradients."""

from . import convolution, pooling
from .convolution import *  # noqa: F403
from .pooling import *  # noqa: F403

__all__ = [*convolution.__all__, *pooling.__all__]
