"""Products for processors that multiply faster than they load: operands are copied as they are met.

The first rows copy each panel of columns that they meet to where registers of them begin cache lines and follow each
other; there the other rows find them. The first panel copies rows so, if they are neighbours: term by term, those of
each register tile side by side. Products hide part of that: a term whose columns are copied takes 19 to 22 cycles on an
Intel Xeon, and 12.5 where they are near. What comes from memory is fetched beside the products of the panel before.

Source: Goto, van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM Trans. Math. Softw. 34 (2008),
section 5 (packing), which copies before it multiplies.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from ..core.jit import subroutine
from ._gemm import ROWS, VECTORS, Copied, Fetched, Place, Product, add_tile
from ._geometry import Integers
from ._kernel import always_inlined, never_inlined
from ._simd import lanes, prefetch

# Rows with which all lines of the next panel are fetched beside products: one more than it has vectors for each term.
FETCHING_ROWS = (VECTORS + 2) * ROWS


class PackedRows(NamedTuple):
    """Where rows are copied to: ROWS elements for each term; tables of each row, and of each term."""

    at: int
    row_at: int
    terms_at: int


class Packed(NamedTuple):
    """Where columns are copied to."""

    array: types.Array
    columns: Place  # VECTORS vectors for each term, which begin cache lines
    fetches: bool  # whether columns come from memory


def row_table(rows: int, terms: int) -> Integers:
    """Where rows begin that are copied."""
    tile, row = np.divmod(np.arange(rows), ROWS)
    return tile * ROWS * terms + row


@subroutine
def multiply_packed(product, rows, columns, packed, packed_rows):
    """`fastconv.cpu._gemm.multiply_by_columns`, with operands that are copied to where a `Packed` says.

    packed_rows: a `PackedRows`, or None for rows that are no neighbours, which are not copied.
    """
    never_inlined()
    panel = VECTORS * lanes(product.sums)
    begin = 0
    if packed_rows is not None:
        product, begin = _copy_rows(product, rows, columns, packed, packed_rows)
    fetches_in_loops = packed.fetches and rows >= FETCHING_ROWS
    for column in range(begin, columns, panel):
        width = min(panel, columns - column)
        if packed.fetches and (column == begin or not fetches_in_loops):
            _fetch_columns(product, column, width)
        if width == panel and fetches_in_loops:
            _multiply_and_fetch(product, rows, column, packed)
        elif width == panel:
            _multiply_panel(VECTORS, product, rows, column, packed)
        elif width == 2 * lanes(product.sums):
            _multiply_panel(2, product, rows, column, packed)
        else:
            _multiply_panel(1, product, rows, column, packed)


@subroutine
def _copy_rows(product, rows, columns, packed, packed_rows):
    """The product with copied rows, and the first column that is left to it; all of them, where one panel is few."""
    always_inlined()
    panel = VECTORS * lanes(product.sums)
    if columns < 2 * panel:
        return product, 0
    near = _near(product, 0, packed)
    for k in range(0, rows, ROWS):
        place = Place(packed_rows.at + product.table[packed_rows.row_at + k], packed_rows.terms_at)
        if k == 0:
            add_tile(ROWS, VECTORS, product, 0, 0, ROWS, Copied(packed.array, packed.columns, place), None)
        else:
            add_tile(ROWS, VECTORS, near, k, 0, ROWS, Copied(packed.array, None, place), None)
    copied = Product(
        product.sums, product.sums_at, product.pitch, packed.array, packed_rows.at, product.right, product.right_at,
        product.table, packed_rows.row_at, packed_rows.terms_at, product.offset_at, product.terms, product.fresh,
    )  # fmt: skip
    return copied, panel


@subroutine
def _multiply_panel(vectors, product, rows, column, packed):
    always_inlined()
    near = _near(product, column, packed)
    add_tile(ROWS, vectors, product, 0, column, ROWS, Copied(packed.array, packed.columns, None), None)
    for k in range(ROWS, rows, ROWS):
        add_tile(ROWS, vectors, near, k, column, ROWS, None, None)


@subroutine
def _multiply_and_fetch(product, rows, column, packed):
    """`_multiply_panel` of whole panels: the rows but the first fetch a line of each term of the next panel."""
    always_inlined()
    near, step = _near(product, column, packed), lanes(product.sums)
    add_tile(ROWS, VECTORS, product, 0, column, ROWS, Copied(packed.array, packed.columns, None), None)
    for k in range(ROWS, rows, ROWS):
        ahead = VECTORS + min(k // ROWS - 1, VECTORS)
        fetched = Fetched(product.right, Place(product.right_at + column + ahead * step, product.offset_at))
        add_tile(ROWS, VECTORS, near, k, column, ROWS, fetched, None)


@subroutine
def _near(product, column, packed):
    """The product with the copied columns in the place of those from `column` on."""
    always_inlined()
    return Product(
        product.sums, product.sums_at, product.pitch, product.left, product.left_at,
        packed.array, packed.columns.at - column, product.table, product.row_at, product.taken_at,
        packed.columns.terms_at, product.terms, product.fresh,
    )  # fmt: skip


@subroutine
def _fetch_columns(product, column, count):
    """Begin to fetch some columns of every term: nothing but that, so that many are on their way at once."""
    for j in range(product.terms):
        at = product.right_at + column + product.table[product.offset_at + j]
        for i in range(0, count + lanes(product.sums), lanes(product.sums)):
            prefetch(product.right, at + i)
