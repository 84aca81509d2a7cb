"""A source within a run: whatever reads rows is waited for no longer than the run may last."""

from __future__ import annotations

from typing import Any, cast

from ..contracts.source import Source
from ..control.run_control import current


def bound_source(source: Source) -> Source:
    """Return `source` with its reading bounded; not its batches, which the pipeline reads ahead in a thread of its own."""
    return cast("Source", _BoundedSource(source))


def read_bounded(read: Any, *args: Any) -> Any:
    """Return what `read` returns, which reads rows; see `fo_onnx.control.run_control.RunControl.bounded`."""
    return current().bounded(lambda: read(*args), "while a row was being read")


class _BoundedSource:
    def __init__(self, source: Source) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        if name in ("length", "has_labels", "assumed_batch"):
            return read_bounded(getattr, self._source, name)
        value = getattr(self._source, name)
        if name in ("peek", "sample", "annotations", "fingerprint"):
            return lambda *args: read_bounded(value, *args)
        # What is known without reading.
        return value
