"""Rows out into memory: the sink of a run without ``out=``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..contracts.batch import BadRow
from ..distributions import Distributions
from ..distributions.columns import Array, ArrayRows, Layout, read_chunks
from ..distributions.metrics import MetricsAccumulator
from ..errors import StoreError
from .row_checks import DOING, SeenIds, check_append
from .schema import complete_meta


class MemorySink:
    """A `Sink` that keeps rows in arrays.

    Args:
        length: Number of source rows that will come, if it is known; arrays of that size are made at once.
        classes: Number of classes k.
        id_kind: ``"int"`` or ``"str"``.
        labels: Whether appends carry labels.
        logits: Whether appends carry logits.

    Attributes:
        written: Rows so far.
        bad_rows: Bad rows so far.
        bad: Those rows.
    """

    def __init__(self, length: int | None, *, classes: int, id_kind: str, labels: bool, logits: bool) -> None:
        self.layout = Layout(classes, id_kind, labels, logits)
        self.written = 0
        self.bad_rows = 0
        self.bad: list[BadRow] = []
        size = 1024 if length is None else length
        # Ids 0, 1, 2, … are known by their position and take no memory.
        self._ids_are_positions = id_kind == "int"
        self._arrays = {
            c: self.layout.make_column(c, size)
            for c in self.layout.columns
            if c != "ids" or not self._ids_are_positions
        }
        self._seen = SeenIds(self._read_ids)
        self._result: Distributions | None = None

    def append(self, ids: Array, probs: Any, labels: Any, logits: Any, bad: Sequence[BadRow] = ()) -> None:
        """Take the next rows, and copy them. Raises `StoreError` as `fo_onnx.contracts.Sink` says."""
        if self._result is not None:
            raise StoreError(f"{DOING}: the run was ended already.")
        columns = check_append(self.layout, ids, probs, labels, logits)
        new_ids = cast(Array, columns.ids)
        self._seen.take(new_ids)
        start, stop = self.written, self.written + len(new_ids)
        # From the first id that is not its position on, all of them are stored.
        if self._ids_are_positions and len(new_ids):
            ends_fit = new_ids.item(0) == start and new_ids.item(-1) == stop - 1
            if not (ends_fit and self._seen.are_increasing):
                self._ids_are_positions = False
                self._arrays["ids"] = self.layout.make_column("ids", max(len(self._arrays["probs"]), stop))
                self._arrays["ids"][:start] = np.arange(start)
        if stop > len(self._arrays["probs"]):
            self._grow(stop)
        for name, array in self._arrays.items():
            array[start:stop] = getattr(columns, name)
        self.written = stop
        self.bad_rows += len(bad)
        self.bad.extend(bad)

    @property
    def metrics(self) -> MetricsAccumulator:
        """Return the metrics of the rows so far, computed now."""
        accumulator = MetricsAccumulator(self.layout.classes)
        for part in read_chunks(self._rows(), ("probs", "labels")):
            accumulator.update(cast(Array, part.probs), part.labels)
        return accumulator

    def commit(self, meta: dict[str, Any]) -> None:
        """End the run; `distributions` then returns the same object again and again."""
        self.distributions(meta)

    def abort(self, error: BaseException) -> Path | None:
        """Return ``None``: nothing is kept on any disk."""
        return None

    def distributions(self, meta: Mapping[str, Any] | None = None) -> Distributions:
        """Return the rows, without a copy. Metrics are computed when they are asked for."""
        if self._result is None:
            rows = self._rows()
            own = {"rows": {"written": self.written, "skipped": self.bad_rows, "quarantined": 0}}
            self._result = Distributions.from_rows(
                rows, complete_meta({**own, **(meta or {})}, rows), already_checked=True
            )
        return self._result

    def _rows(self) -> ArrayRows:
        part = {name: array[: self.written] for name, array in self._arrays.items()}
        return ArrayRows(part["probs"], part.get("ids"), part.get("labels"), part.get("logits"))

    def _read_ids(self) -> Iterator[Array]:
        for part in read_chunks(self._rows(), ("ids",)):
            yield cast(Array, part.ids)

    def _grow(self, least: int) -> None:
        for name, array in self._arrays.items():
            larger = self.layout.make_column(name, max(least, 2 * len(array)))
            larger[: self.written] = array[: self.written]
            self._arrays[name] = larger
