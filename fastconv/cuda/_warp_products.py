"""What the warps of a block do with panels in its memory: products of matrices on tensor cores, for every precision.

==========  =========  ===================================================  ===========================
precision   elements   factors                                              a product's error, relative
==========  =========  ===================================================  ===========================
float16     float16    as they are                                          none
bfloat16    bfloat16   as they are                                          none
tf32        float32    rounded to 11 bits                                   2**-11
3xtf32      float32    the sum of two of 11 bits; three of four products    2**-21
==========  =========  ===================================================  ===========================

Sums are float32, but tensor cores cut off what float32 rounds (Fasi et al., "Numerical behavior of NVIDIA tensor
cores", PeerJ Computer Science 7:e330, 2021, section 4): of many products in a sum, these errors add up.

What is multiplied lies in the block's memory in pieces of 16 bytes. A row of a panel of positions is 64 bytes of source
channels, the inner numbers of the product; a panel of lines has a row for each inner number: the result channels of one
source channel, or in GRAD_WEIGHT the channels of one pixel, of either factor. A piece is at home at the place that is
its number XOR that of its row, so that what a warp reads at once lies in different banks.

Source: PTX ISA 8.0, section 9.7.13.4 (which thread holds what of a matrix); Markidis et al., "NVIDIA Tensor Core
programmability, performance & precision", IPDPSW 2018, section V; Ootomo and Yokota, "Recovering single precision
accuracy from Tensor Cores while surpassing the FP32 theoretical peak performance", IJHPCA 36(4), 2022, section 3;
Bhaskaracharya et al., "Automatic kernel generation for Volta tensor cores", arXiv:2006.12645, section 4 (swizzling).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ._device import WARP, cuda, float32, function, int32, put, quotient, remainder, thread, travelling
from ._tensor_words import (
    bits_of,
    matrices,
    multiply_matrices,
    put_words,
    rest_of,
    rounded_to_tf32,
    transposed_matrices,
    word_at,
)

HEIGHT, WIDTH = 16, 8  # of the matrices whose sums a warp holds
PIECE_BYTES, WORDS = 16, 4  # of a piece, and its words of 32 bits
ROW_BYTES = 64  # of a row of the panel of positions
BANK_ROWS = 2  # such rows that lie side by side in the banks
ELEMENTS = {"float16": "float16", "bfloat16": "bfloat16", "tf32": "float32", "3xtf32": "float32"}


class WarpTile(NamedTuple):
    """Sizes of a block's tile.

    Attributes
    ----------
    rows, columns
        Sums of a block.
    depth
        Products between two barriers.
    row_warps, column_warps
        Warps side by side along either.
    """

    rows: int
    columns: int
    depth: int
    row_warps: int
    column_warps: int

    @property
    def threads(self) -> int:
        """Of a block."""
        return WARP * self.row_warps * self.column_warps

    @property
    def row_matrices(self) -> int:
        """Of a warp, `HEIGHT * row_warps` rows apart."""
        return self.rows // (HEIGHT * self.row_warps)

    @property
    def column_matrices(self) -> int:
        """Of a warp, next to each other."""
        return self.columns // (WIDTH * self.column_warps)


class Format(NamedTuple):
    """How the elements of a precision fill pieces and matrices.

    Attributes
    ----------
    bytes
        Of an element.
    inner
        Numbers that one product of matrices sums over.
    """

    bytes: int
    inner: int

    @property
    def piece(self) -> int:
        """Elements in a piece."""
        return PIECE_BYTES // self.bytes


def format_of(precision: str) -> Format:
    """Of a precision."""
    return Format(4, 8) if ELEMENTS[precision] == "float32" else Format(2, 16)


def elements_of_piece(dtype: str) -> int:
    """How many elements of a tensor's type a piece holds."""
    return PIECE_BYTES // travelling(dtype).itemsize


def fetch_piece(precision: str) -> Any:
    """The function ``(source, at, stride, count, words, to)``: a piece of one place's channels, zeros after count."""

    @function
    def of_halves(source, at, stride, count, words, to):
        for k in range(WORDS):
            low = bits_of(source, int32(at + 2 * k * stride)) if 2 * k < count else int32(0)
            high = bits_of(source, int32(at + (2 * k + 1) * stride)) if 2 * k + 1 < count else int32(0)
            words[to + k] = int32(low | high << 16)

    @function
    def of_words(source, at, stride, count, words, to):
        for k in range(WORDS):
            words[to + k] = bits_of(source, int32(at + k * stride)) if k < count else int32(0)

    return of_words if ELEMENTS[precision] == "float32" else of_halves


@function
def lay_piece(panels, address, words, first):
    """Lay a piece that was fetched into four words from this one on."""
    put_words(panels, address, words[first], words[first + 1], words[first + 2], words[first + 3])


# ---- where pieces are at home, and which word of a panel a lane names for the matrices that it reads


@function
def row_home(row, piece):
    """Word of a piece in the panel of positions: eight rows one after another lie in different banks."""
    return int32(row * (ROW_BYTES // 4) + (piece ^ (row // BANK_ROWS & 3)) * WORDS)


def line_home(precision: str, lines: int) -> Any:
    """The function that gives the word of a piece of a row in a panel of so many lines.

    Of 16 bits, a warp reads one piece of eight rows at once; of 32 bits, two neighbouring pieces of four rows.
    """
    stride = lines * format_of(precision).bytes // 4
    rows, pieces = (3, 2) if ELEMENTS[precision] == "float32" else (7, 1)

    @function
    def home(row, piece):
        return int32(row * stride + (piece ^ (row & rows) * pieces) * WORDS)

    return home


def line_words(precision: str, lines: int, are_rows: bool) -> Any:
    """The function ``(lane, number)``: word of a panel of so many lines that a lane names.

    are_rows: whether lines are rows of the sums, or columns. number: of 16 bits, of a pair of matrices of eight lines;
    of 32 bits, of one.
    """
    home = line_home(precision, lines)

    @function
    def of_halves(lane, number):
        # Four matrices are read at once: first come those side by side if lines are rows, else one below the other.
        fast, slow = quotient(lane, int32(8)) & 1, quotient(lane, int32(16))
        half, lower = (fast, slow) if are_rows else (slow, fast)
        return home(int32(lower * 8 + (lane & 7)), int32(2 * number + half))

    @function
    def of_words(lane, number):
        row, line = remainder(lane, int32(4)), quotient(lane, int32(4))
        return int32(home(row, int32(2 * number + line // WORDS)) + (line & 3))

    return of_words if ELEMENTS[precision] == "float32" else of_halves


def line_reads(precision: str, lines: int) -> int:
    """How many words each lane names for so many lines."""
    return lines // WIDTH if ELEMENTS[precision] == "float32" else lines // (2 * WIDTH)


# ---- products


def multiply_panels(precision: str, tile: WarpTile, rows: str) -> Any:
    """The function ``(panels, row_at, column_at, sums)``: add the product of two panels to the sums of a warp.

    rows: "positions" or "lines", what the rows of the first panel are. row_at: addresses that a lane names in it, of
    positions one for each `Format.inner`, of lines those of `line_words`. column_at: those of the second, a panel of
    lines. sums: four for each matrix of the warp, row by row of matrices.
    """
    row_factors = (_factors_of_lines if rows == "lines" else _factors_of_positions)(precision, tile)
    multiply = _multiply_words if ELEMENTS[precision] == "float32" else _multiply_halves
    return multiply(precision, tile, row_factors)


def _factors_of_positions(precision: str, tile: WarpTile) -> Any:
    """The function ``(panels, row_at, step, i)``: the four words of the warp's i-th matrix of rows."""
    row_step = HEIGHT * tile.row_warps * ROW_BYTES

    @function
    def factors(panels, row_at, step, i):
        return matrices(panels, int32(row_at[step] + i * row_step))

    return factors


def _factors_of_lines(precision: str, tile: WarpTile) -> Any:
    """Likewise from a panel of lines."""
    each = format_of(precision)
    line = tile.rows * each.bytes
    inner_step = each.inner * line

    @function
    def of_halves(panels, row_at, step, i):
        return transposed_matrices(panels, int32(row_at[i] + step * inner_step))

    @function
    def of_words(panels, row_at, step, i):
        upper, lower = int32(row_at[2 * i] + step * inner_step), int32(row_at[2 * i + 1] + step * inner_step)
        return (
            word_at(panels, upper),
            word_at(panels, lower),
            word_at(panels, int32(upper + 4 * line)),
            word_at(panels, int32(lower + 4 * line)),
        )

    return of_words if ELEMENTS[precision] == "float32" else of_halves


def _add_product(precision: str) -> Any:
    """The function ``(sums, first, rows, row, columns, column)``: add the product of two matrices to four sums."""
    multiply = multiply_matrices[precision]

    @function
    def added(sums, first, rows, row, columns, column):
        sums[first], sums[first + 1], sums[first + 2], sums[first + 3] = multiply(
            rows[row],
            rows[row + 1],
            rows[row + 2],
            rows[row + 3],
            columns[column],
            columns[column + 1],
            sums[first],
            sums[first + 1],
            sums[first + 2],
            sums[first + 3],
        )

    return added


def _multiply_halves(precision: str, tile: WarpTile, row_factors: Any) -> Any:
    row_count, column_count = tile.row_matrices, tile.column_matrices
    inner, steps = format_of(precision).inner, tile.depth // format_of(precision).inner
    inner_step = inner * tile.columns * 2
    row_words, column_words = 4 * row_count, 2 * column_count
    add_product = _add_product(precision)

    @function
    def multiplied(panels, row_at, column_at, sums):
        rows = cuda.local.array(row_words, int32)
        columns = cuda.local.array(column_words, int32)
        for step in range(steps):
            for i in range(row_count):
                words = row_factors(panels, row_at, step, i)
                for k in range(4):
                    rows[4 * i + k] = words[k]
            for j in range(column_count // 2):
                words = transposed_matrices(panels, int32(column_at[j] + step * inner_step))
                for k in range(4):
                    columns[4 * j + k] = words[k]
            for i in range(row_count):
                for j in range(column_count):
                    add_product(sums, 4 * (i * column_count + j), rows, 4 * i, columns, 2 * j)

    return multiplied


@function
def rounded_in_three(word):
    """`rounded_to_tf32` in two instructions for four; a NaN that it loses is in the rest."""
    return int32((word + (1 << 12)) & -(1 << 13))


def _multiply_words(precision: str, tile: WarpTile, row_factors: Any) -> Any:
    """Rests, what rounding took from the factors, meet rounded factors in two products; theirs are too small to count.

    Tensor cores read the first 10 bits of a rest's fraction. Rests are added first, and the three products to the sums
    outside of the tensor cores, which would cut the sums off. Infinity has no rest but NaN.
    """
    row_count, column_count, is_threefold = tile.row_matrices, tile.column_matrices, precision == "3xtf32"
    inner, steps = format_of(precision).inner, tile.depth // format_of(precision).inner
    line = tile.columns * 4
    column_words = 2 * column_count
    add_product = _add_product("tf32")
    rounded = rounded_in_three if is_threefold else rounded_to_tf32

    @function
    def multiplied(panels, row_at, column_at, sums):
        rows, row_rests = cuda.local.array(4, int32), cuda.local.array(4, int32)
        columns, column_rests = cuda.local.array(column_words, int32), cuda.local.array(column_words, int32)
        three = cuda.local.array(4, float32)
        for step in range(steps):
            for j in range(column_count):
                for k in range(2):
                    word = word_at(panels, int32(column_at[j] + (step * inner + 4 * k) * line))
                    columns[2 * j + k] = rounded(word)
                    column_rests[2 * j + k] = rest_of(word, columns[2 * j + k])
            for i in range(row_count):
                words = row_factors(panels, row_at, step, i)
                for k in range(4):
                    rows[k] = rounded(words[k])
                    row_rests[k] = rest_of(words[k], rows[k])
                for j in range(column_count):
                    first = 4 * (i * column_count + j)
                    if is_threefold:
                        for k in range(4):
                            three[k] = float32(0)
                        add_product(three, 0, row_rests, 0, columns, 2 * j)
                        add_product(three, 0, rows, 0, column_rests, 2 * j)
                        add_product(three, 0, rows, 0, columns, 2 * j)
                        for k in range(4):
                            sums[first + k] += three[k]
                    else:
                        add_product(sums, first, rows, 0, columns, 2 * j)

    return multiplied


def spread_matrices(tile: WarpTile, rows_are_neighbours: bool) -> Any:
    """The function ``(memory, sums, i, row_warp, column_warp)``: lay one row of matrices of every warp into memory.

    What is laid is `HEIGHT * row_warps` rows x all columns, neighbouring rows next to each other or columns.
    """
    column_count = tile.column_matrices
    height, columns = HEIGHT * tile.row_warps, tile.columns
    (row_step, column_step) = (1, height) if rows_are_neighbours else (columns, 1)

    @function
    def laid(memory, at, sums, first):
        for j in range(column_count):
            for k in range(4):
                to = int32(at + k // 2 * 8 * row_step + (j * WIDTH + k % 2) * column_step)
                put(memory, to, sums[first + 4 * j + k])

    def from_row(own: int) -> Any:
        """Row by row, since the compiler leaves a loop over them a loop, and the sums in slow memory."""
        first, below = 4 * own * column_count, from_row(own + 1) if own + 1 < tile.row_matrices else None

        if below is None:

            @function
            def last_laid(memory, at, sums, i):
                laid(memory, at, sums, first)

            return last_laid

        @function
        def one_laid(memory, at, sums, i):
            if i == own:
                laid(memory, at, sums, first)
            else:
                below(memory, at, sums, i)

        return one_laid

    any_laid = from_row(0)

    @function
    def spread(memory, sums, i, row_warp, column_warp):
        lane = remainder(thread(), int32(WARP))
        row = int32(row_warp * HEIGHT + quotient(lane, int32(4)))
        column = int32(column_warp * (column_count * WIDTH) + remainder(lane, int32(4)) * 2)
        any_laid(memory, int32(row * row_step + column * column_step), sums, i)

    return spread
