"""Rows out into memory: the sink of a run without ``out=``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..contracts.batch import BadRow
from ..distributions import Distributions
from ..distributions.columns import Array, ArrayRows, Layout
from ..distributions.ids import are_consecutive
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
    """

    def __init__(self, length: int | None, *, classes: int, id_kind: str, labels: bool, logits: bool) -> None:
        self._layout = Layout(classes, id_kind, labels, logits)
        self.written = 0
        self.bad_rows = 0
        size = 1024 if length is None else length
        # Ids 0, 1, 2, … are known by their position and take no memory, until one is another.
        columns = [column for column in self._layout.columns if column != "ids" or id_kind == "str"]
        self._arrays = {column: self._layout.make_column(column, size) for column in columns}
        self._seen = SeenIds(lambda: [self._arrays.get("ids", np.arange(self.written))[: self.written]])
        self._result: Distributions | None = None

    def append(self, ids: Array, probs: Any, labels: Any, logits: Any, bad: Sequence[BadRow] = ()) -> None:
        """Take the next rows, and copy them. Raises `StoreError` as `fo_onnx.contracts.Sink` says."""
        if self._result is not None:
            raise StoreError(f"{DOING}: the run was ended already.")
        columns = check_append(self._layout, ids, probs, labels, logits)
        self._seen.take(cast(Array, columns.ids))
        start, stop = self.written, self.written + len(probs)
        if "ids" not in self._arrays and not are_consecutive(cast(Array, columns.ids), start):
            self._arrays["ids"] = self._layout.make_column("ids", len(self._arrays["probs"]))
            self._arrays["ids"][:start] = np.arange(start)
        for name, array in self._arrays.items():
            if stop > len(array):
                self._arrays[name] = self._layout.make_column(name, max(stop, 2 * len(array)))
                self._arrays[name][:start] = array[:start]
            self._arrays[name][start:stop] = getattr(columns, name)
        self.written = stop
        self.bad_rows += len(bad)

    def commit(self, meta: dict[str, Any]) -> None:
        """End the run; `distributions` then returns the same object again and again."""
        self.distributions(meta)

    def abort(self, error: BaseException) -> Path | None:
        """Return ``None``: nothing is kept on any disk."""
        return None

    def distributions(self, meta: Mapping[str, Any] | None = None) -> Distributions:
        """Return the rows, without a copy. Metrics are computed when they are asked for."""
        if self._result is None:
            rows = ArrayRows(**{name: array[: self.written] for name, array in self._arrays.items()}, where="")
            own = {"rows": {"written": self.written, "skipped": self.bad_rows, "quarantined": 0}}
            record = complete_meta({**own, **(meta or {})}, rows)
            self._result = Distributions.from_rows(rows, record, already_checked=True)
        return self._result
