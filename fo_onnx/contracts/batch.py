"""Rows on their way: arrays by input name, and consecutive rows of a source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Inputs = Mapping[str, Array]
"""Arrays by input name, batch axis first. Inputs that have no name of their own are called ``"0"``, ``"1"``, …; those
of nested structures have their path, joined by dots (``"image.left"``)."""


class OwnInputs(dict[str, Array]):
    """Inputs whose arrays were made for one run of the model, so that one that works in place may have them without a copy."""


@dataclass(frozen=True)
class BadRow:
    """A row that could not be read or run.

    Attributes:
        position: Its position in the source, counted from 0.
        id: Its id.
        reason: What went wrong.
    """

    position: int
    id: int | str
    reason: str


@dataclass(frozen=True)
class Batch:
    """Consecutive rows of a source.

    Attributes:
        ids: (n,) int64, or text (numpy ``U`` or object of str).
        inputs: Arrays of shape (n, …) by input name.
        labels: (n,) int64, or names of classes as objects (str), as the data hold them; or ``None``.
        start: Position in the source of the first row that this batch accounts for, counted from 0.
        bad: Rows among those accounted for that could not be read, in order. They are not among `ids`.
    """

    ids: Array
    inputs: dict[str, Array]
    labels: Array | None
    start: int
    bad: tuple[BadRow, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def stop(self) -> int:
        """Return the position after the last row that this batch accounts for."""
        return self.start + len(self.ids) + len(self.bad)


def count_rows(inputs: Inputs) -> int:
    """Return the number of rows of a batch of inputs."""
    return len(next(iter(inputs.values())))


def cut_inputs(inputs: Inputs, size: int) -> Iterator[dict[str, Array]]:
    """Yield inputs of `size` rows each, in order; the last ones may have fewer. Without a row they are yielded once."""
    for start in range(0, max(count_rows(inputs), 1), size):
        yield {name: array[start : start + size] for name, array in inputs.items()}


def first_row(inputs: Inputs) -> dict[str, Array]:
    """Return inputs of the first row alone."""
    return {name: array[:1] for name, array in inputs.items()}


def join_inputs(inputs: Inputs, more: Inputs) -> Inputs:
    """Return inputs with the rows of `more`, if it has any, after their own."""
    return {name: join_arrays([array, more[name]]) for name, array in inputs.items()} if more else inputs


def join_arrays(arrays: Sequence[Array], dtype: np.dtype[Any] | None = None) -> Array:
    """Return arrays (n, …) one after another; a single one stays what it is.

    Text is as wide as its longest, other values are of `dtype`, if it is given. What a dtype says of its values (their
    categories) stays, which numpy alone would drop.
    """
    if dtype is None:
        dtype = arrays[0].dtype if all(a.dtype == arrays[0].dtype for a in arrays) else np.result_type(*arrays)
    if dtype.kind == "U":
        dtype = max((a.dtype for a in arrays), key=lambda text: text.itemsize)
    joined = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, dtype=dtype, casting="unsafe")
    return joined.astype(dtype, copy=False)


def pad_rows(array: Array, rows: int) -> Array:
    """Return an array with at least `rows` rows: copies of its last row are appended."""
    missing = rows - len(array)
    return array if missing <= 0 else join_arrays([array, np.repeat(array[-1:], missing, axis=0)])


def cut_padded(inputs: Inputs, size: int) -> list[Inputs]:
    """Return inputs of `size` rows each, in order; the last ones have copies of the last row where rows are missing."""
    return [{name: pad_rows(array, size) for name, array in part.items()} for part in cut_inputs(inputs, size)]


def restore_batch_axis(output: Array, rows: int) -> Array:
    """Return a model's output with the batch axis that a model which squeezes loses for a batch of one row."""
    return output[None] if rows == 1 and output.shape[:1] != (1,) else output
