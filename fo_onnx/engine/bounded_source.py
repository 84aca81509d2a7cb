"""A source within a run: whatever reads rows is waited for no longer than the run may last."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Array, Batch
from ..contracts.source import Source
from ..control.run_control import current

_READING = "while a row was being read"


def bound_source(source: Source) -> Source:
    """Return `source` with its reading bounded; not its batches, which the pipeline reads ahead in a thread of its own."""
    return cast("Source", _BoundedSource(source))


class _BoundedSource:
    def __init__(self, source: Source) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        # What is known without reading.
        return getattr(self._source, name)

    @property
    def length(self) -> int | None:
        return current().bounded(lambda: self._source.length, _READING)

    @property
    def has_labels(self) -> bool:
        return current().bounded(lambda: self._source.has_labels, _READING)

    def peek(self, n: int) -> Batch:
        return current().bounded(lambda: self._source.peek(n), _READING)

    def annotations(self, start: int, stop: int) -> tuple[Array, NDArray[np.int64] | None]:
        return current().bounded(lambda: self._source.annotations(start, stop), _READING)

    def fingerprint(self) -> str:
        return current().bounded(self._source.fingerprint, _READING)
