"""Rows out into memory: what a run without ``out=`` gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..distributions import Distributions
from ..errors import StoreError
from ..metrics import MetricsAccumulator
from ..protocols import BadRow
from ..rows import Array, ArrayRows, chunks
from .checks import SeenIds, checked
from .schema import Layout, complete_meta


class MemorySink:
    """A `Sink` that keeps rows in arrays.

    Args:
        length: Number of source rows that will come, where it is known; arrays of that size are made at once.
        classes: Number of classes k.
        id_kind: ``"int"`` or ``"str"``.
        labels: Whether appends carry labels.
        logits: Whether appends carry logits.

    Attributes:
        written: Rows so far.
        bad_rows: Rows so far that came to nothing.
        bad: Those rows.
    """

    def __init__(self, length: int | None, *, classes: int, id_kind: str, labels: bool, logits: bool) -> None:
        self.layout = Layout(classes, id_kind, labels, logits)
        self.written = 0
        self.bad_rows = 0
        self.bad: list[BadRow] = []
        self._arrays = {c: self._array(c, 1024 if length is None else length) for c in self.layout.columns}
        # Ids 0, 1, 2, … are told from their position and take no memory.
        self._consecutive = id_kind == "int"
        if self._consecutive:
            del self._arrays["ids"]
        self._seen = SeenIds(self._ids_so_far)
        self._done: Distributions | None = None

    def append(
        self,
        ids: Array,
        probs: Any,
        labels: Any,
        logits: Any,
        bad: Sequence[BadRow] = (),
    ) -> None:
        """Takes the next rows; copies them. Raises `StoreError` as `fo_onnx.protocols.Sink` says."""
        if self._done is not None:
            raise StoreError("Taking rows of results: the run was ended already.")
        columns = checked(self.layout, ids, probs, labels, logits)
        taken = cast(Array, columns.ids)
        start, stop = self.written, self.written + len(taken)
        if self._consecutive and _consecutive(taken, start):
            self._seen.follow(stop - 1)
        else:
            self._seen.take(taken)
            if self._consecutive:
                self._consecutive = False
                self._arrays["ids"] = self._array("ids", max(len(self._arrays["probs"]), stop))
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
        """Metrics of the rows so far, computed now."""
        gathered = MetricsAccumulator(self.layout.classes)
        for part in chunks(self._rows(), ("probs", "labels")):
            gathered.update(cast(Array, part.probs), part.labels)
        return gathered

    def commit(self, meta: dict[str, Any]) -> None:
        """Ends the run; `distributions` then gives the same object again and again."""
        self.distributions(meta)

    def abort(self, error: BaseException) -> Path | None:
        """Nothing is kept on any disk: ``None``."""
        return None

    def distributions(self, meta: Mapping[str, Any] | None = None) -> Distributions:
        """The rows, without a copy. Metrics are computed when they are asked for."""
        if self._done is None:
            rows = self._rows()
            own = {"rows": {"written": self.written, "skipped": self.bad_rows, "quarantined": 0}}
            self._done = Distributions.from_rows(rows, complete_meta({**own, **(meta or {})}, rows), trusted=True)
        return self._done

    def _rows(self) -> ArrayRows:
        part = {name: array[: self.written] for name, array in self._arrays.items()}
        return ArrayRows(part["probs"], part.get("ids"), part.get("labels"), part.get("logits"))

    def _ids_so_far(self) -> Iterator[Array]:
        for part in chunks(self._rows(), ("ids",)):
            yield cast(Array, part.ids)

    def _array(self, column: str, length: int) -> Array:
        if column in ("probs", "logits"):
            return np.empty((length, self.layout.classes), dtype=np.float32)
        return np.empty(length, dtype=object if column == "ids" and self.layout.id_kind == "str" else np.int64)

    def _grow(self, least: int) -> None:
        for name, array in self._arrays.items():
            larger = self._array(name, max(least, 2 * len(array)))
            larger[: self.written] = array[: self.written]
            self._arrays[name] = larger


def _consecutive(ids: Array, start: int) -> bool:
    """Whether `ids` are `start`, `start` + 1, and so on."""
    n = len(ids)
    return n == 0 or bool(ids.item(0) == start and ids.item(n - 1) == start + n - 1 and (ids[1:] > ids[:-1]).all())
