"""Filters that are transformed by one launch, for all tasks of another, and that may be kept from call to call."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from ..core.algorithm import Array, KeptWeight
from ..core.arrays import on_a_line
from ._launch import Launch, scratch


@dataclass(frozen=True)
class Filtered:
    """Two launches of a kernel of FORWARD or GRAD_INPUT.

    Attributes
    ----------
    transform
        The launch that stores the spectra of w in the place of its result.
    correlate
        The launch that takes them in the place of w.
    elements, dtype
        Size and type of the spectra.
    """

    transform: Launch
    correlate: Launch
    elements: int
    dtype: str

    def __call__(self, x: Array, w: Array, y: Array, residual: Array, constants: Array, threads: int) -> None:
        spectra = self._transformed(w, scratch(self.elements, self.dtype, "spectra"), threads)
        self.correlate(x, spectra, y, residual, constants, threads)

    def kept_weight(self, key: Hashable) -> KeptWeight:
        """The same with the spectra of filters that stay; `key` says in which order they are."""
        return KeptWeight(
            key=key,
            transform=lambda w, threads: self._transformed(w, on_a_line(self.elements, self.dtype), threads),
            run=self.correlate,
        )

    def _transformed(self, w: Array, spectra: Array, threads: int) -> Array:
        self.transform(spectra, w, spectra, spectra, spectra, threads)
        return spectra
