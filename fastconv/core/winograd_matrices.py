"""The three matrices of Winograd's minimal filtering F(m, r): m outputs of r taps with m + r - 1 products.

For data d of m + r - 1 elements and a filter g of r taps, the m correlations are::

    y = A^T [(G g) * (B^T d)],     y[i] = sum over k of g[k] * d[i + k]

with a product for each interpolation point. In two dimensions each matrix is applied along both axes, and a sum over
channels is formed between the brackets, so that it costs m + r - 1 products along each axis in place of m * r.

Sources: Winograd, Arithmetic Complexity of Computations, 1980, chapter 5; Blahut, Fast Algorithms for Signal
Processing, 2010, section 5.4 (Toom and Cook's way to the matrices); Lavin, Gray, "Fast Algorithms for Convolutional
Neural Networks", CVPR 2016 (the use for layers).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

# Points beside infinity, by the number of products. Square roots of 1/2 and 2 keep the matrices' entries near 1: the
# largest error of F(4, 3) was 1.6e-5 of the result's root mean square, and 6.9e-5 with 0, +-1, +-2. Those of 8 products
# were the best of a search as in Barabasz, Anderson, Soodhalter, Gregg, "Error Analysis and Improving the Accuracy of
# Winograd Convolution for Deep Neural Networks", ACM Trans. Math. Softw. 46 (2020): among +-a, +-b, +-c, with a from
# 0.4 to 0.7, b from 0.8 to 1.1 and c from 1.3 to 2, none had less than 0.9 of their error over F(6, 3) and F(3, 6)
# along two axes and F(4, 5) and F(2, 7) along one. Those of 10 were found likewise for F(4, 7), with 2.4 times the root
# mean square error of F(2, 7). Those of 9, all in pairs, were the best of 400 for F(7, 3) along H with F(4, 3) along W:
# 2.6e-6 of the result's root mean square and 2.3e-5 at most, where zero, three pairs and one more had 3.2e-6 and
# 4.4e-5, and F(6, 3) along both axes 3.4e-6 and 4.4e-5.
_POINTS = {
    1: (),
    4: (0.0, 1.0, -1.0),
    6: (0.0, math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2.0), -math.sqrt(2.0)),
    8: (0.0, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0),
    9: (0.3, -0.3, 0.7, -0.7, 1.1, -1.1, 2.0, -2.0),
    10: (0.0, 0.4, -0.4, 0.8, -0.8, 1.25, -1.25, 2.5, -2.5),
}


class Filtering(NamedTuple):
    """The matrices of F(m, r); n = m + r - 1.

    Attributes
    ----------
    back
        A^T, of shape (m, n): products to outputs.
    filter
        G, of shape (n, r).
    data
        B^T, of shape (n, n).
    """

    back: Matrix
    filter: Matrix
    data: Matrix

    @property
    def outputs(self) -> int:
        """M."""
        return len(self.back)

    @property
    def products(self) -> int:
        """n, the elements of data and the interpolation points."""
        return len(self.data)

    @property
    def reach(self) -> int:
        """Elements of the data of a tile behind those at its outputs."""
        return self.products - self.outputs

    @property
    def further(self) -> int:
        """Tiles behind its own that the data of a tile reaches into."""
        return -(-self.reach // self.outputs)

    @property
    def growth(self) -> float:
        """How many times the largest element of the data, times that of the filter, an intermediate result may be."""
        return float(math.prod(max(1.0, np.abs(matrix).sum(axis=1).max()) for matrix in self))

    @property
    def taps(self) -> int:
        """R."""
        return int(self.filter.shape[1])


def filtering(m: int, r: int) -> Filtering:
    """F(m, r), for m + r - 1 of 1, 4, 6, 8, 9 or 10.

    With the polynomial f(x) = product of (x - a_l) over the points a_l, row j of B^T holds the coefficients of
    f(x) / (x - a_j), row j of G the powers of a_j divided by f'(a_j), column j of A^T the powers of a_j; the point at
    infinity has f itself and the highest powers.
    """
    n = m + r - 1
    points = np.array(_POINTS[n])
    back, filters, data = np.zeros((m, n)), np.zeros((n, r)), np.zeros((n, n))
    for j, point in enumerate(points):
        others = np.delete(points, j)
        back[:, j] = point ** np.arange(m)
        filters[j] = point ** np.arange(r) / np.prod(point - others)
        data[j, : n - 1] = np.poly(others)[::-1]
    back[m - 1, n - 1] = filters[n - 1, r - 1] = 1
    data[n - 1] = np.atleast_1d(np.poly(points))[::-1]
    return Filtering(back, filters, _without_noise(data))


def _without_noise(matrix: Matrix) -> Matrix:
    """The matrix with zeros and quarters of integers where rounding has left almost that."""
    quarters = np.round(4 * matrix) / 4
    return np.where(np.abs(matrix - quarters) < 1e-14, quarters, matrix)
