"""Rows on their way: arrays by input name, and consecutive rows of a source."""

from __future__ import annotations

from collections.abc import Mapping
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
        labels: (n,) int64, or ``None``.
        start: Position in the source of the first row that this batch accounts for, counted from 0.
        bad: Rows among those accounted for that could not be read, in order. They are not among `ids`.
    """

    ids: Array
    inputs: dict[str, Array]
    labels: NDArray[np.int64] | None
    start: int
    bad: tuple[BadRow, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def stop(self) -> int:
        """Position after the last row that this batch accounts for."""
        return self.start + len(self.ids) + len(self.bad)
