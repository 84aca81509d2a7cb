"""A source within a run: whatever reads rows is waited for no longer than the run may last."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..protocols import Array, Batch, Source
from ..run_control import current

_READING = "while a row was being read"


class BoundedSource:
    """A `Source` whose reading ends with the run that it is read for.

    Batches are not bounded here: the pipeline reads them ahead, in a thread of its own.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def length(self) -> int | None:
        """See `fo_onnx.protocols.Source`."""
        return current().bounded(lambda: self._source.length, _READING)

    @property
    def has_labels(self) -> bool:
        """See `fo_onnx.protocols.Source`."""
        return current().bounded(lambda: self._source.has_labels, _READING)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """See `fo_onnx.protocols.Source`."""
        return self._source.class_names

    @property
    def id_kind(self) -> str:
        """See `fo_onnx.protocols.Source`."""
        return self._source.id_kind

    @property
    def columns_named(self) -> bool:
        """See `fo_onnx.protocols.Source`."""
        return self._source.columns_named

    @property
    def sequential(self) -> bool:
        """See `fo_onnx.protocols.Source`."""
        return self._source.sequential

    @property
    def in_memory(self) -> bool:
        """See `fo_onnx.protocols.Source`."""
        return self._source.in_memory

    @property
    def preprocessing(self) -> dict[str, Any]:
        """See `fo_onnx.protocols.Source`."""
        return self._source.preprocessing

    def peek(self, n: int) -> Batch:
        """See `fo_onnx.protocols.Source`."""
        return current().bounded(lambda: self._source.peek(n), _READING)

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        """See `fo_onnx.protocols.Source`."""
        return self._source.batches(size, start)

    def annotations(self, start: int, stop: int) -> tuple[Array, NDArray[np.int64] | None]:
        """See `fo_onnx.protocols.Source`."""
        return current().bounded(lambda: self._source.annotations(start, stop), _READING)

    def fingerprint(self) -> str:
        """See `fo_onnx.protocols.Source`."""
        return current().bounded(self._source.fingerprint, _READING)
