"""Rows out: what a sink must do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .batch import Array, BadRow


class Sink(Protocol):
    """Rows out."""

    def append(
        self,
        ids: Array,
        probs: NDArray[np.float32],
        labels: NDArray[np.int64] | None,
        logits: NDArray[np.float32] | None,
        bad: Sequence[BadRow] = (),
    ) -> None:
        """Take the next rows and the bad ones among them. Called in the order of the source.

        Rows are distributions: `invalid_rows` has sorted out the others. Raises `StoreError` for ids that were there
        already, for labels that are no class, and for columns of another type or shape.
        """

    def commit(self, meta: dict[str, Any]) -> None:
        """End the run: everything is in its place, whole."""

    def abort(self, error: BaseException) -> Path | None:
        """End the run early and keep the finished rows. Return where they are, or ``None`` if nowhere."""
