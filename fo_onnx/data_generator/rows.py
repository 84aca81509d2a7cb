"""A run's rows as the dict that users of the guide know, from index to row."""

from __future__ import annotations

import copy
import os
from collections import OrderedDict
from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..distributions import Distributions
from ..errors import DataError
from ..store import load
from .tensors import Tensors


class _Unmade:
    """Stands for a row that nobody has asked for."""

    def __repr__(self) -> str:
        return "<row not made yet>"


_UNMADE = _Unmade()
_BLOCK = 256
"""Rows that are made at once: JAX takes as long for each alone as for ten in a block."""


class RowDict(dict[Any, Any]):
    """A dict from index to row whose rows are made when they are asked for, some at a time.

    Making 10,000 of them one by one takes JAX half a second. Each is made once and kept, so that it may be changed like any
    value of a dict. Copies of it are plain dicts, and what pickle makes of it is an ordered one.

    Attributes:
        source: The distributions that rows are made from.
    """

    def __init__(self, source: Distributions, tensors: Tensors) -> None:
        """Takes the rows of `source`.

        Args:
            source: One distribution per id.
            tensors: What a row becomes.
        """
        super().__init__(dict.fromkeys(source, _UNMADE))
        self.source = source
        self._tensors = tensors
        self._by_position = source.id_kind == "int" and np.array_equal(source.ids, np.arange(len(source)))

    def __getitem__(self, key: Any) -> Any:
        if super().__getitem__(key) is _UNMADE:
            self._make(key)
        return super().__getitem__(key)

    def _make(self, key: Any) -> None:
        """Makes the row of `key`, and those around it where keys are positions."""
        if not self._by_position:
            # A number of another type is the same key to a dict.
            row = self.source[key if isinstance(key, str) else int(key)]
            super().__setitem__(key, self._tensors.rows(row[None])[0])
            return
        start = int(key) - int(key) % _BLOCK
        part = self.source.slice(start, start + _BLOCK)
        for other, row in zip(part, self._tensors.rows(part.probs.copy()), strict=True):
            if super().get(other) is _UNMADE:
                super().__setitem__(other, row)

    def __iter__(self) -> Iterator[Any]:
        # Where a subclass has its own, dict(d), {**d} and d.update() ask __getitem__ instead of copying what is inside.
        return super().__iter__()

    def get(self, key: Any, default: Any = None) -> Any:
        """The row of `key`, or `default`."""
        return self[key] if key in self else default  # noqa: SIM401  (this is what it would call)

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        """The rows."""
        return ValuesView(self)

    def items(self) -> ItemsView[Any, Any]:  # type: ignore[override]
        """The indices with their rows."""
        return ItemsView(self)

    def pop(self, key: Any, *default: Any) -> Any:
        """Takes a row out and returns it, or `default` where there is none."""
        if key in self:
            found = self[key]
            del self[key]
            return found
        return super().pop(key, *default)

    def popitem(self) -> tuple[Any, Any]:
        """Takes the last row out and returns it with its index."""
        if not self:
            return super().popitem()
        key = next(reversed(self))
        return key, self.pop(key)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """The row of `key`, which becomes `default` where there is none."""
        return self[key] if key in self else super().setdefault(key, default)

    def copy(self) -> dict[Any, Any]:
        """A plain dict with every row."""
        return dict(self)

    def __or__(self, other: Any) -> dict[Any, Any]:
        return NotImplemented if not isinstance(other, dict) else dict(self) | dict(other)

    def __ror__(self, other: Any) -> dict[Any, Any]:
        return NotImplemented if not isinstance(other, dict) else dict(other) | dict(self)

    def __eq__(self, other: object) -> bool:
        """Whether the indices are the same, and every number of every row."""
        if not isinstance(other, Mapping) or self.keys() != other.keys():
            return False
        array = self._tensors.array
        return all(np.array_equal(array(self[k]), array(other[k])) for k in self)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def __copy__(self) -> dict[Any, Any]:
        return dict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[Any, Any]:
        return copy.deepcopy(dict(self), memo)

    def __reduce__(self) -> tuple[Any, ...]:
        # torch.load with weights_only, its default, knows no other dict.
        return OrderedDict, (), None, None, iter(self.items())

    @classmethod
    def fromkeys(cls, keys: Any, value: Any = None) -> dict[Any, Any]:
        """A plain dict."""
        return dict.fromkeys(keys, value)

    def __repr__(self) -> str:
        if len(self) <= 4:
            return repr(dict(self))
        first = ", ".join(f"{k!r}: {self[k]!r}" for k, _ in zip(self, range(2), strict=False))
        return f"{{{first}, …}} ({len(self)} rows × {self.source.classes} classes)"

    def distributions(self) -> Distributions:
        """The rows as they are now: `source` itself, unless something was changed.

        Raises:
            DataError: A row was changed into something that is no distribution.
        """
        made = {k: row for k, row in super().items() if row is not _UNMADE}
        if list(self) == list(self.source):
            array = self._tensors.array
            if all(np.array_equal(array(row), self.source[k]) for k, row in made.items()):
                return self.source
        return distributions_of(dict(self), self._tensors)


def distributions_of(value: Any, tensors: Tensors) -> Distributions:
    """What a caller calls distributions.

    Args:
        value: A `Distributions`, a path of a file of them, or a dict from index to row: lists, arrays, or tensors of the
            framework.
        tensors: The framework's.

    Raises:
        DataError: Rows of unequal length, or one that is no distribution.
        StoreError: The file cannot be read.
    """
    if isinstance(value, Distributions):
        return value
    if isinstance(value, RowDict):
        return value.distributions()
    if isinstance(value, str | os.PathLike):
        return load(cast(Any, value))
    if not isinstance(value, Mapping):
        raise DataError(
            f"distributions= is a {type(value).__name__}; a dict from index to row, a Distributions or a file's path was expected."
        )
    ids = list(value)
    if not ids:
        raise DataError("distributions= is an empty dict, so that there are no rows.")
    rows = [_row(value[i], i, tensors) for i in ids]
    for i, row in zip(ids, rows, strict=True):
        if row.shape != rows[0].shape or row.ndim != 1:
            raise DataError(
                f"distributions: the row of {i!r} has the shape {row.shape} where the first has {rows[0].shape}; one "
                "probability per class, shape (classes,), was expected."
            )
    return Distributions(np.stack(rows), ids=ids)


def _row(value: Any, index: Any, tensors: Tensors) -> NDArray[np.float32]:
    try:
        return np.asarray(tensors.array(value), np.float32)
    except (TypeError, ValueError) as err:
        raise DataError(f"distributions: the row of {index!r} is no array of numbers ({err}).") from err
