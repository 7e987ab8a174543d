"""The register-tiled product of two panels in the memory of a block, which im2col is made of.

A block of threads sums a tile of rows x columns. Of every `depth` products it first lays both factors into its memory,
a panel of rows and a panel of columns; each thread then multiplies pieces of four rows by pieces of four columns, read
128 bits at a time and held in registers. A thread's pieces lie `rows / row_pieces` apart, so that the threads of a warp
read neighbouring pieces and no two of them wait for one bank.

Source: Volkov, Demmel, "Benchmarking GPUs to tune dense linear algebra", SC 2008, section 4 (sums in registers, panels
in shared memory); Nath, Tomov, Dongarra, "An improved MAGMA GEMM for Fermi GPUs", IJHPCA 24(4), 2010, section 4
(panels of both factors, fetched into registers while the last are multiplied).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ._device import function, get4, int32, put4

PIECE = 4  # rows, or columns, that one access of 128 bits holds in float32


class Tile(NamedTuple):
    """Sizes of a block's tile.

    Attributes
    ----------
    rows, columns
        Sums of a block.
    depth
        Products between two barriers.
    row_pieces, column_pieces
        Of four rows, and of four columns, that a thread sums.
    """

    rows: int
    columns: int
    depth: int
    row_pieces: int
    column_pieces: int

    @property
    def row_threads(self) -> int:
        """Threads side by side along the rows."""
        return self.rows // (PIECE * self.row_pieces)

    @property
    def column_threads(self) -> int:
        """Threads side by side along the columns."""
        return self.columns // (PIECE * self.column_pieces)

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.row_threads * self.column_threads

    @property
    def sums(self) -> int:
        """Of a thread."""
        return self.row_pieces * self.column_pieces * PIECE**2

    @property
    def row_stride(self) -> int:
        """Elements of memory from one product's rows to the next's.

        Four more than there are rows: threads that lay products of one row side by side meet different banks.
        """
        return self.rows + PIECE

    @property
    def column_stride(self) -> int:
        """Likewise of the columns."""
        return self.columns + PIECE

    @property
    def panels(self) -> int:
        """Elements of a panel of rows and a panel of columns."""
        return self.depth * (self.row_stride + self.column_stride)

    @property
    def memory(self) -> int:
        """Elements of the block's memory: both panels twice, and later a piece of every thread's sums."""
        return max(2 * self.panels, self.rows * self.columns // (self.row_pieces * self.column_pieces))


# Registers of a thread, of the 65536 of a multiprocessor: with 128 some 16 warps are resident, and some multiply while
# others wait for memory. A number of float64 takes two, and where a thread keeps the places of many lines, 128 spill.
MOST_REGISTERS = 65536
REGISTERS, MANY_REGISTERS = 128, 168


def resident_blocks(dtype: str, threads: int, many: bool = False) -> int:
    """Blocks of so many threads that a multiprocessor is to hold at once; many: whether they take many registers."""
    registers = MANY_REGISTERS if many or dtype == "float64" else REGISTERS
    return max(1, MOST_REGISTERS // (registers * threads))


def multiply(tile: Tile) -> Any:
    """The function ``(panels, row_at, column_at, sums, rows, columns)``: add a panel's products to a thread's sums.

    row_at, column_at: where the thread's first pieces lie in `panels`. sums: rows x columns of the thread, in order.
    rows, columns: local arrays for the factors of one product.
    """
    row_pieces, column_pieces = tile.row_pieces, tile.column_pieces
    height, width = PIECE * row_pieces, PIECE * column_pieces
    row_gap, column_gap = tile.rows // row_pieces, tile.columns // column_pieces

    @function
    def multiply_once(panels, row_at, column_at, sums, rows, columns):
        for i in range(row_pieces):
            first, second, third, fourth = get4(panels, int32(row_at + i * row_gap))
            rows[PIECE * i] = first
            rows[PIECE * i + 1] = second
            rows[PIECE * i + 2] = third
            rows[PIECE * i + 3] = fourth
        for j in range(column_pieces):
            first, second, third, fourth = get4(panels, int32(column_at + j * column_gap))
            columns[PIECE * j] = first
            columns[PIECE * j + 1] = second
            columns[PIECE * j + 2] = third
            columns[PIECE * j + 3] = fourth
        for i in range(height):
            for j in range(width):
                sums[i * width + j] += rows[i] * columns[j]

    def times(count: int) -> Any:
        """So many products: twice the half, since the compiler leaves a loop of them a loop, with 4 in 10 idle."""
        if count == 1:
            return multiply_once
        half, row_step, column_step = times(count // 2), count // 2 * tile.row_stride, count // 2 * tile.column_stride

        @function
        def multiply_twice(panels, row_at, column_at, sums, rows, columns):
            half(panels, row_at, column_at, sums, rows, columns)
            half(panels, int32(row_at + row_step), int32(column_at + column_step), sums, rows, columns)

        return multiply_twice

    return times(tile.depth)


def spread_sums(tile: Tile, rows_are_neighbours: bool) -> Any:
    """The function ``(panels, sums, piece, row_thread, column_thread)``: lay one piece of every thread into memory.

    What is laid is `tile.rows / row_pieces` x `tile.columns / column_pieces` sums, neighbouring rows next to each other
    or neighbouring columns, in the place of the panels.
    """
    row_pieces, column_pieces = tile.row_pieces, tile.column_pieces
    width = PIECE * column_pieces
    along = tile.rows // row_pieces if rows_are_neighbours else tile.columns // column_pieces
    # From one row of a thread's sums to the next, and from one column.
    (across_step, along_step) = (1, width) if rows_are_neighbours else (width, 1)

    @function
    def laid(panels, sums, piece, row_thread, column_thread):
        for i in range(row_pieces):
            for j in range(column_pieces):
                if piece == i * column_pieces + j:
                    across, beside = (column_thread, row_thread) if rows_are_neighbours else (row_thread, column_thread)
                    for line in range(PIECE):
                        first = PIECE * (i * width + j) + line * across_step
                        put4(
                            panels,
                            int32((across * PIECE + line) * along + beside * PIECE),
                            sums[first],
                            sums[first + along_step],
                            sums[first + 2 * along_step],
                            sums[first + 3 * along_step],
                        )

    return laid
