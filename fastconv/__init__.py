"""Convolution for NumPy arrays, as fast as the hardware allows, with gradients and without a framework.

>>> import numpy as np, fastconv
>>> x, weight = np.random.rand(8, 3, 64, 64), np.random.rand(16, 3, 5, 5)
>>> fastconv.conv2d(x, weight, padding="same").shape
(8, 16, 64, 64)
"""

from . import grad, ndimage, pooling, signal
from .core.errors import DeviceError, UnsupportedError
from .explanation import explain
from .functional import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from .operators import conv_matrix, conv_operator
from .patches import col2im, fold, im2col, unfold, windows
from .pooling import *  # noqa: F403
from .prepared import Prepared, prepare
from .shapes import conv_output_shape, conv_transpose_output_shape, parameter_count

__version__ = "0.1.0"

__all__ = [
    "DeviceError",
    "Prepared",
    "UnsupportedError",
    "col2im",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_matrix",
    "conv_operator",
    "conv_output_shape",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "conv_transpose_output_shape",
    "explain",
    "fold",
    "grad",
    "im2col",
    "ndimage",
    "parameter_count",
    "prepare",
    "signal",
    "unfold",
    "windows",
    *pooling.__all__,
]
