"""A quantised matrix as the weights of a MatMulNBits node: streams of codes, scales and zero points."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vintern_export.quantisation import BlockFormat, packed_codes, packed_zero_points, quantised

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vintern_export.numbers import RawArray
    from vintern_export.weights import LinearWeight

ACCURACY_LEVELS = {0: "that of the arithmetic", 4: "activations of 8 bits by block"}
"""What MatMulNBits may compute with; the operator's levels 1 to 3 are no faster than these on the CPU provider."""

KERNEL_FORMS = {4: (32, 64, 128), 8: (128,)}
"""Block sizes by bits that the runtime's own kernels for CPUs take, with accuracy level :data:`KERNEL_LEVEL`."""
KERNEL_LEVEL = 4


@dataclass(frozen=True)
class MatrixStorage:
    """How the matrices of a graph are stored.

    Attributes:
        name: of the precision, ``int8`` or ``int4``.
        body: of all matrices but the output projection.
        head: of the output projection of the language model; None where the graph has none.
        accuracy_level: one of :data:`ACCURACY_LEVELS`.
    """

    name: str
    body: BlockFormat
    head: BlockFormat | None
    accuracy_level: int

    def forms(self) -> list[BlockFormat]:
        """The formats of all matrices."""
        return [self.body] if self.head is None else [self.body, self.head]

    def has_kernels(self) -> bool:
        """Whether the runtime's own kernels for CPUs take the matrices: :data:`KERNEL_FORMS`."""
        taken = all(form.block_size in KERNEL_FORMS[form.bits] for form in self.forms())
        return taken and self.accuracy_level == KERNEL_LEVEL

    def as_json(self) -> dict[str, Any]:
        """The manifest entry."""
        forms = {"body": self.body, "lm_head": self.head}
        entries = {key: asdict(form) for key, form in forms.items() if form}
        return entries | {"accuracy_level": self.accuracy_level}


class QuantisedMatrix:
    """The three weights of a quantised matrix.

    The matrix is read and quantised once, while ``codes`` is streamed; ``scales`` and ``zero_points`` come after it.
    """

    def __init__(self, weight: LinearWeight, form: BlockFormat) -> None:
        self.form = form
        self.inputs, self.outputs = weight.shape
        self._weight = weight
        blocks = form.blocks(self.inputs)
        self.codes = Codes((self.outputs, blocks, form.block_size * form.bits // 8), self)
        self.scales = Kept((self.outputs, blocks), None)
        self.zero_points = Kept((self.outputs, -(-blocks * form.bits // 8)), "uint8")

    def stream(self) -> Iterator[RawArray]:
        """Packed codes of blocks of rows; keeps their scales and zero points."""
        for rows in self._weight.rows():
            found = quantised(rows, self.form, threads=os.cpu_count() or 1)
            self.scales.keep(found.scales)
            if not self.form.symmetric:
                self.zero_points.keep(packed_zero_points(found.zero_points, self.form.bits))
            yield packed_codes(found.codes, self.form.bits)


class Codes:
    """The codes of a matrix, [out, blocks, bytes of a block] uint8."""

    dtype = "uint8"

    def __init__(self, shape: tuple[int, ...], matrix: QuantisedMatrix) -> None:
        self.shape = shape
        self._matrix = matrix

    def pieces(self) -> Iterator[RawArray]:
        """Blocks of rows."""
        return self._matrix.stream()


class Kept:
    """What the codes' stream left behind: given out once."""

    def __init__(self, shape: tuple[int, ...], dtype: str | None) -> None:
        self.shape = shape
        self.dtype = dtype
        self._pieces: list[RawArray] = []

    def keep(self, piece: RawArray) -> None:
        """Adds the next rows."""
        self._pieces.append(piece)

    def pieces(self) -> Iterator[RawArray]:
        """All rows; they are forgotten."""
        pieces, self._pieces = self._pieces, []
        yield np.concatenate(pieces)
