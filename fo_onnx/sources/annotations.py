"""Ids and labels, as the user gives them or as the data have them up front, and how rows are recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Array
from ..contracts.options import DataOptions
from ..errors import DataError
from ..plugin_kit.digests import qualified_name
from .labels import Labels, check_text, entries_at, read_labels, to_classes


def check_ids(values: Any, what: str = "ids=") -> Array:
    """Return a sequence of integers or of text, which messages call `what`, as ids: (n,) int64, or an object array of str.

    Raises:
        DataError: Other types, a mixture, or an id that is there twice.
    """
    if isinstance(values, str | bytes) or not (hasattr(values, "__len__") and hasattr(values, "__iter__")):
        raise DataError(f"{what} is a {type(values).__name__}; a sequence of integers or of text was expected.")
    # Python's own values, whatever they came in.
    ids: list[Any] = values.tolist() if hasattr(values, "tolist") else list(values)
    ids = [v.item() if isinstance(v, np.generic) else v for v in ids]
    # One type for all; each usable, and there once.
    is_text = len(ids) > 0 and isinstance(ids[0], str)
    positions: dict[Any, int] = {}
    for i, v in enumerate(ids):
        if isinstance(v, str) != is_text:
            raise DataError(
                f"{what} mixes integers and text: {ids[0]!r} at position 0, {v!r} at position {i}. Give all "
                "ids as text, or all as integers."
            )
        if is_text:
            check_text(v, f"{what} holds {v!r} at position {i}, which", "give other ids.")
        elif isinstance(v, bool) or not isinstance(v, int) or not -(2**63) <= v < 2**63:
            raise DataError(f"{what} holds {v!r} at position {i}; 64-bit integers or text were expected.")
        if positions.setdefault(v, i) != i:
            raise DataError(f"{what} holds {v!r} twice, at positions {positions[v]} and {i}; each id must be unique.")
    # numpy's own text has one width for all rows, and loses NULs at the end.
    return np.array(ids, dtype=object if is_text else np.int64)


@dataclass(frozen=True)
class RowAnnotations:
    """Ids and labels of a source.

    Attributes:
        ids: (n,) int64, or an object array of str; ``None`` if they are the rows' positions.
        labels: Labels known up front; ``None`` if rows carry their own, or there are none.
    """

    ids: Array | None
    labels: Labels | None

    @property
    def id_kind(self) -> str:
        """Return ``"int"`` or ``"str"``."""
        return "int" if self.ids is None or self.ids.dtype.kind == "i" else "str"

    def ids_at(self, positions: NDArray[np.int64]) -> Array:
        """Return the ids of the rows at `positions`, which ascend."""
        return positions if self.ids is None else entries_at(self.ids, positions, "ids=")

    def id_at(self, position: int) -> int | str:
        """Return the id of one row."""
        return cast("int | str", self.ids_at(np.array([position], dtype=np.int64)).tolist()[0])

    def labels_at(self, positions: NDArray[np.int64], carried: Array | None = None) -> Array | None:
        """Return the labels of the rows at `positions`; `carried` are those that the rows carry themselves."""
        if self.labels is not None:
            return entries_at(self.labels.values, positions, "labels=")
        return None if carried is None else to_classes(carried, positions)

    def check_length(self, length: int, limit: int | None = None) -> None:
        """Raise a `DataError` unless there is one id and one label for each of `length` rows.

        With a `limit` they may count the rows that are taken, too.
        """
        lengths = (length, length if limit is None else min(length, limit))
        for what, entries in (("ids=", self.ids), ("labels=", None if self.labels is None else self.labels.values)):
            if entries is not None and len(entries) not in lengths:
                raise DataError(
                    f"{what} has {len(entries)} entries, but the data have {length} rows: one per row was expected."
                )


def annotate_rows(options: DataOptions, ids: Array | None = None, labels: Labels | None = None) -> RowAnnotations:
    """Return what the user gave, else what the data have (`ids`, `labels`), else positions and no labels."""
    if options.ids is not None:
        ids = check_ids(options.ids)
    if options.labels is not None:
        labels = None if options.labels is False else read_labels(options.labels)
    return RowAnnotations(ids, labels)


def describe_preprocessing(options: DataOptions) -> dict[str, Any]:
    """Return the user's functions by qualified name, for the record."""
    functions = {"input_getter": options.input_getter, "transform": options.transform}
    return {name: qualified_name(f) for name, f in functions.items() if f is not None}


def sample_positions(length: int, count: int = 16, start: int = 0) -> Sequence[int]:
    """Return up to `count` positions, spread evenly over those from `start` to ``length − 1``, first and last among them."""
    count = min(count, length - start)
    return [int(p) for p in np.unique(np.linspace(start, length - 1, count).round())] if count > 0 else []
