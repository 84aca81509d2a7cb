"""What stands beside the rows: ids and labels, given by the user or found up front in the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..options import DataOptions
from ..protocols import Array
from .labels import Labels, check_text, class_labels, given_labels


class Ids:
    """One id per row: the row's position, or what was given.

    Args:
        values: (n,) int64 or text, unique; ``None`` for positions.
        what: How messages call them.
    """

    def __init__(self, values: Array | None = None, what: str = "ids=") -> None:
        self.values = values
        self.what = what

    @property
    def kind(self) -> str:
        """``"int"`` or ``"str"``."""
        return "int" if self.values is None or self.values.dtype.kind == "i" else "str"

    def at(self, positions: NDArray[np.int64]) -> Array:
        """The ids of the rows at `positions`, which ascend."""
        if self.values is None:
            return positions
        if len(positions) and positions[-1] >= len(self.values):
            raise DataError(
                f"{self.what} has {len(self.values)} entries, but the data have more rows: one per row was expected.",
                position=len(self.values),
            )
        return self.values[positions]

    def between(self, start: int, stop: int) -> Array:
        """The ids of the rows from `start` to `stop`, as a view where they are given."""
        return np.arange(start, stop, dtype=np.int64) if self.values is None else self.values[start:stop]

    def one(self, position: int) -> int | str:
        """The id of one row."""
        return cast("int | str", self.at(np.array([position], dtype=np.int64)).tolist()[0])


def given_ids(values: Any, what: str = "ids=") -> Ids:
    """Ids that the user gave.

    Args:
        values: A sequence of integers or of text; each must be there once.
        what: How messages call them.

    Raises:
        DataError: Other types, a mixture, or an id that is there twice.
    """
    if isinstance(values, str | bytes) or not (hasattr(values, "__len__") and hasattr(values, "__iter__")):
        raise DataError(f"{what} is a {type(values).__name__}; a sequence of integers or of text was expected.")
    listed: list[Any] = values.tolist() if hasattr(values, "tolist") else list(values)
    listed = [v.item() if isinstance(v, np.generic) else v for v in listed]
    text = [isinstance(v, str) for v in listed]
    if any(text) and not all(text):
        odd = text.index(not text[0])
        raise DataError(
            f"{what} mixes integers and text: {listed[0]!r} at position 0, {listed[odd]!r} at position {odd}. Give all "
            "ids as text, or all as integers."
        )
    if not any(text):
        for i, v in enumerate(listed):
            if isinstance(v, bool) or not isinstance(v, int) or not -(2**63) <= v < 2**63:
                raise DataError(f"{what} holds {v!r} at position {i}; 64-bit integers or text were expected.")
    seen: dict[Any, int] = {}
    for i, v in enumerate(listed):
        if text[i]:
            check_text(v, f"{what} holds {v!r} at position {i}, which", "give other ids.")
        if seen.setdefault(v, i) != i:
            raise DataError(f"{what} holds {v!r} twice, at positions {seen[v]} and {i}; each id must be unique.")
    return Ids(_text_array(listed) if any(text) else np.array(listed, dtype=np.int64), what)


def _text_array(values: list[str]) -> Array:
    # numpy's text has one width for all rows, and loses NULs at the end.
    if max(map(len, values)) > 256 or any(v.endswith("\0") for v in values):
        return np.array(values, dtype=object)
    return np.array(values, dtype=np.str_)


@dataclass(frozen=True)
class Beside:
    """Ids and labels of a source.

    Attributes:
        ids: One id per row.
        labels: Labels known up front; ``None`` where rows carry their own, or there are none.
        ids_given: Whether the user gave the ids.
    """

    ids: Ids
    labels: Labels | None
    ids_given: bool = False

    def labels_at(self, positions: NDArray[np.int64], found: Array | None) -> NDArray[np.int64] | None:
        """The labels of the rows at `positions`; `found` are those that the rows carry."""
        if self.labels is not None:
            return self.labels.at(positions)
        return None if found is None else class_labels(found, positions, streamed=True)

    def between(self, start: int, stop: int) -> tuple[Array, NDArray[np.int64] | None]:
        """Ids and labels of the rows from `start` to `stop`; no labels where rows carry their own."""
        positions = np.arange(start, stop, dtype=np.int64)
        return self.ids.at(positions), None if self.labels is None else self.labels.at(positions)

    def check_length(self, length: int, limit: int | None = None) -> None:
        """Raises a `DataError` unless there is one id and one label for each of `length` rows.

        With a `limit` they may count the rows that are taken, too.
        """
        taken = length if limit is None else min(length, limit)
        sizes = [(self.ids.what, None if self.ids.values is None else len(self.ids.values))]
        sizes.append((self.labels.what, len(self.labels.values)) if self.labels is not None else ("", None))
        for what, size in sizes:
            if size is not None and size not in (length, taken):
                raise DataError(
                    f"{what} has {size} entries, but the data have {length} rows: one per row was expected."
                )


def beside(options: DataOptions, ids: Ids | None = None, labels: Labels | None = None) -> Beside:
    """What the user gave, else what the data have (`ids`, `labels`), else positions and no labels."""
    if options.ids is not None:
        ids = given_ids(options.ids)
    if options.labels is False:
        labels = None
    elif options.labels is not None:
        labels = given_labels(options.labels)
    return Beside(ids if ids is not None else Ids(), labels, ids is not None)


def preprocessing(options: DataOptions) -> dict[str, Any]:
    """The user's functions by qualified name, for the record."""
    found = {"input_getter": options.input_getter, "transform": options.transform}
    return {k: _qualified_name(f) for k, f in found.items() if f is not None}


def _qualified_name(function: Any) -> str:
    inner = getattr(function, "func", None)
    if inner is not None and callable(inner) and not hasattr(function, "__qualname__"):
        return f"partial({_qualified_name(inner)})"
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def spread(length: int, count: int = 16) -> Sequence[int]:
    """Up to `count` positions, spread evenly over `length` rows, first and last among them."""
    return [int(p) for p in np.unique(np.linspace(0, length - 1, min(count, length)).round())] if length else []
