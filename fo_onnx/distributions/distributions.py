"""`Distributions`: one class distribution per sample, addressed by the sample's id."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, OutputError, RowNotFoundError, StoreError
from ..guards.printable import escaped
from .columns import (
    COLUMNS,
    Array,
    ArrayRows,
    CheckedRows,
    ReorderedRows,
    Rows,
    SelectedRows,
    make_array,
    read_chunks,
)
from .ids import IdIndex, normalise_ids, require_unique, shorten_list, to_object_array, to_range
from .metrics import MetricsAccumulator
from .probabilities import invalid_rows

_MAKING = "Making Distributions"
_OF_ITS_ROWS_ALONE = ("metrics", "digest", "complete", "part", "identity")
"""Keys of a meta that hold for just the rows that it was written with."""


class Distributions(Mapping[int | str, NDArray[np.float32]]):
    """One class distribution per sample: a mapping from ids to arrays (classes,), float32, in the order of the samples.

    Args:
        probs: (n, k) distributions; kept as float32.
        ids: (n,) integers or text, each once; the default is 0 … n − 1.
        labels: (n,) true classes in 0 … k − 1.
        logits: (n, k) unnormalised scores.
        meta: The record of the rows, as JSON types; ``meta["model"]["class_names"]`` names the columns. It may be that of
            other rows: what it says of those alone (metrics, digest, counts, whether the run ended) is left out.

    Raises:
        DataError: Shapes do not fit, an id is there twice, or a label is no class.
        OutputError: A row is no distribution; names the ids.

    Example:
        >>> d = Distributions([[0.25, 0.75], [1.0, 0.0]], ids=["a", "b"])
        >>> d["a"]
        array([0.25, 0.75], dtype=float32)
    """

    def __init__(
        self,
        probs: Any,
        *,
        ids: Any = None,
        labels: Any = None,
        logits: Any = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        # Shapes and types of each argument, then whether the rows are distributions.
        table = _to_matrix("probs", probs)
        n, k = table.shape
        row_ids = None if ids is None else normalise_ids(ids, _MAKING)
        if row_ids is not None:
            if len(row_ids) != n:
                raise DataError(f"{_MAKING}: {n} rows but {len(row_ids)} ids; one id per row was expected.")
            require_unique(row_ids, _MAKING)
        scores = None if logits is None else _to_matrix("logits", logits)
        if scores is not None and scores.shape != (n, k):
            raise DataError(f"{_MAKING}: logits of shape {scores.shape} beside probs of shape {(n, k)}.")
        rows = ArrayRows(table, row_ids, _to_classes(labels, n, k), scores)
        if len(bad := invalid_rows(table)):
            bad_ids = bad if row_ids is None else row_ids[bad]
            raise OutputError(
                f"{_MAKING}: {len(bad)} of {n} rows are no distribution (finite, not negative, sum 1 within 0.001); ids "
                f"{shorten_list(bad_ids.tolist())}. Logits become distributions with fo_onnx.distributions.probabilities.softmax."
            )
        self._set_rows(rows, _meta_of_rows(rows, meta or {}))

    @classmethod
    def from_rows(cls, rows: Rows, meta: Mapping[str, Any], *, already_checked: bool = False) -> Distributions:
        """Return distributions over rows that lie elsewhere, and are read when they are asked for.

        Args:
            rows: The rows.
            meta: The record of just these rows.
            already_checked: Whether rows are known to be distributions; if not, they are checked as they are read.
        """
        new = cls.__new__(cls)
        new._set_rows(rows if already_checked or isinstance(rows, CheckedRows) else CheckedRows(rows), meta)
        return new

    def _set_rows(self, rows: Rows, meta: Mapping[str, Any]) -> None:
        self._rows = rows
        self.meta: dict[str, Any] = dict(meta)
        # What was decoded so far; all of it can be decoded again.
        self._columns: dict[str, Array] = {}
        self._ids: Array | range | None = None
        self._index: IdIndex | None = None

    def __len__(self) -> int:
        return self._rows.length

    def __iter__(self) -> Iterator[int | str]:
        chunks = (part.ids for part in read_chunks(self._rows, ("ids",)))
        for ids in chunks if self._ids is None else [self._ids]:
            yield from (ids if isinstance(ids, range) else cast(Array, ids).tolist())

    def __contains__(self, key: object) -> bool:
        return self._find_position(key) is not None

    def __getitem__(self, key: int | str) -> NDArray[np.float32]:
        """Return the distribution (k,) of the row with this id, a copy. Raises `RowNotFoundError`."""
        position = self._find_position(key)
        if position is None:
            raise RowNotFoundError(f"There is no row with the id {key!r} in {self!r}. {self._describe_ids()}")
        probs = self._columns.get("probs")
        if probs is None:
            probs, position = cast(Array, self._rows.read(position, position + 1, ("ids", "probs")).probs), 0
        return cast("NDArray[np.float32]", probs[position].copy())

    def __eq__(self, other: object) -> bool:
        """Return whether it is the same object; rows are compared by `equals`."""
        return self is other

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        """Return a line for people; nothing is decoded."""
        rows = self._rows
        layout = rows.layout
        extra = "".join(f", {name}" for name in ("labels", "logits") if name in layout.columns)
        source = f", from {escaped(rows.where)}" if rows.where else ""
        return f"Distributions({rows.length} rows × {layout.classes} classes, {layout.id_kind} ids{extra}{source})"

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be decoded again, so that worker processes get the path and not the rows."""
        return self.__dict__ | {"_columns": {}, "_ids": None, "_index": None}

    @property
    def source(self) -> Rows:
        """Return the rows as columns by position, for writers and others that go through them in chunks."""
        return self._rows

    @property
    def classes(self) -> int:
        """Return the number of classes k."""
        return self._rows.layout.classes

    @property
    def id_kind(self) -> str:
        """Return ``"int"`` or ``"str"``."""
        return self._rows.layout.id_kind

    @property
    def probs(self) -> NDArray[np.float32]:
        """Return (n, k) float32, decoded on first use; in a temporary file mapped into memory if it is large."""
        return cast("NDArray[np.float32]", self._column("probs"))

    @property
    def logits(self) -> NDArray[np.float32] | None:
        """Return (n, k) float32, or ``None`` if they were not kept."""
        return self._column("logits") if self._rows.layout.logits else None

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Return (n,) int64, or ``None`` if they are not known."""
        return self._column("labels") if self._rows.layout.labels else None

    @property
    def ids(self) -> Array:
        """Return (n,) int64, or objects of str; a copy, or read-only. Raises `StoreError` if a file holds an id twice."""
        ids = self._gather_ids()
        return ids.start + np.arange(len(ids), dtype=np.int64) if isinstance(ids, range) else ids

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Return one name per column, or ``None`` if they are not known."""
        names = (self.meta.get("model") or {}).get("class_names")
        return None if names is None else tuple(names)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return `probs`, for ``np.asarray`` and whatever else takes arrays; the arguments are those of numpy's protocol."""
        return np.array(self.probs, dtype=dtype, copy=copy)

    def slice(self, start: int, stop: int | None = None) -> Distributions:
        """Return the rows at positions `start` to ``stop − 1``, as a list is sliced; nothing is copied or decoded.

        Their meta describes them, and not the rows that they were among: see `Distributions`.
        """
        first, last, _ = slice(start, stop).indices(len(self))
        return self._derive(SelectedRows(self._rows, range(first, last)))

    def select(self, mask_or_ids: Any) -> Distributions:
        """Return chosen rows; nothing is decoded. Their meta describes them, as that of `slice` does.

        Args:
            mask_or_ids: A boolean mask (n,), which keeps the order; or ids in any order, each once, which gives theirs.

        Raises:
            DataError: The mask is not (n,), or an id is there twice or has no row; names the ids.

        Example:
            >>> d = Distributions([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]], ids=["a", "b", "c"])
            >>> list(d.select(["c", "a"]))
            ['c', 'a']
            >>> list(d.select(d.probs.max(axis=1) > 0.6))
            ['a', 'b']
        """
        if isinstance(mask_or_ids, str | bytes) or not isinstance(mask_or_ids, Iterable):
            raise DataError(
                f"Selecting from {self!r}: {mask_or_ids!r} was given; a boolean mask ({len(self)},) or several ids were "
                "expected. One row alone is d[id]."
            )
        # An array is taken as it is; other values are not mixed by numpy into one type.
        as_array = hasattr(mask_or_ids, "__array__") and not isinstance(mask_or_ids, Mapping)
        chosen = np.asarray(mask_or_ids) if as_array else to_object_array(mask_or_ids)
        if chosen.dtype == np.bool_ or (chosen.size and all(isinstance(v, bool | np.bool_) for v in chosen.flat)):
            if chosen.shape != (len(self),):
                raise DataError(
                    f"Selecting from {self!r}: a mask of shape {chosen.shape} was given; one truth value per row, shape "
                    f"({len(self)},), was expected."
                )
            return self._derive(SelectedRows(self._rows, np.flatnonzero(chosen.astype(np.bool_))))
        return self._derive(SelectedRows(self._rows, self._find_positions(chosen if chosen.size else [])))

    def _find_positions(self, chosen: Array | list[Any]) -> NDArray[np.int64]:
        doing = f"Selecting from {self!r}"
        ids = normalise_ids(chosen, doing)
        require_unique(ids, doing)
        self._gather_ids()  # read once for all of them
        positions = [self._find_position(key) for key in ids.tolist()]
        unknown = [key for key, position in zip(ids.tolist(), positions, strict=True) if position is None]
        if unknown:
            raise DataError(f"{doing}: there are no rows with the ids {shorten_list(unknown)}. {self._describe_ids()}")
        return np.asarray(positions, np.int64)

    def _derive(self, rows: Rows) -> Distributions:
        """Return distributions over rows that are read through these."""
        return Distributions.from_rows(rows, _meta_of_rows(rows, self.meta), already_checked=True)

    def metrics(self) -> dict[str, Any]:
        """Return the rows in numbers, with the keys of `fo_onnx.distributions.metrics.MetricsAccumulator.result`.

        Entropy, confidence and predicted class counts; with labels also accuracy, NLL, Brier score, calibration error and
        true class counts. What was recorded of these rows while their file was written is returned without reading them.
        """
        if not self._has_metrics():
            accumulator = MetricsAccumulator(self.classes)
            for part in read_chunks(self._rows, ("probs", "labels")):
                accumulator.update(cast(Array, part.probs), part.labels)
            self.meta["metrics"] = accumulator.result()
        return cast("dict[str, Any]", copy.deepcopy(self.meta["metrics"]))

    def _has_metrics(self) -> bool:
        """Return whether the metrics in meta can be those of these rows, with all that their labels give."""
        recorded = self.meta.get("metrics")
        if not isinstance(recorded, Mapping) or recorded.get("rows") != len(self):
            return False
        return "accuracy" in recorded or not self._rows.layout.labels or len(self) == 0

    def to_dict(self) -> dict[int | str, list[float]]:
        """Return ids and distributions as plain Python, in memory."""
        return dict(zip(self.ids.tolist(), self.probs.tolist(), strict=True))

    def align(self, class_names: Sequence[str]) -> Distributions:
        """Return the same rows with their columns in the order of `class_names`; logits and labels follow.

        Raises:
            DataError: The names are not the same set (lists both differences), or no names are known.
        """
        own, wanted = self.class_names, tuple(class_names)
        if own is None:
            raise DataError(
                f"Aligning {self!r}: its class names are not known, so that its columns cannot be matched by name. "
                "Give class_names= when the model is exported or the rows are generated."
            )
        # Columns are matched by name alone: their order may be another, their names may not.
        missing, extra = [n for n in wanted if n not in own], [n for n in own if n not in wanted]
        if missing or extra or len(wanted) != len(own):
            doubled = [] if missing or extra else sorted({n for n in wanted if wanted.count(n) > 1})
            raise DataError(
                f"Aligning {self!r}: the class names differ. Missing here: {shorten_list(missing) or 'none'}; "
                f"extra here: {shorten_list(extra) or 'none'}{f'; given twice: {shorten_list(doubled)}' if doubled else ''}."
            )
        aligned = self._derive(ReorderedRows(self._rows, [own.index(n) for n in wanted]))
        aligned.meta["model"] = {**aligned.meta["model"], "class_names": list(wanted)}
        return aligned

    def equals(self, other: Distributions) -> bool:
        """Return whether ids, probs, labels and logits are the same in every bit and order; meta may differ."""
        a, b = self._rows, other._rows
        if (a.length, a.layout) != (b.length, b.layout):
            return False
        for mine, theirs in zip(read_chunks(a), read_chunks(b, step=a.step), strict=True):
            if not all(_are_same_bits(getattr(mine, c), getattr(theirs, c)) for c in COLUMNS):
                return False
        return True

    def _column(self, name: str) -> Array:
        """Return a whole column, decoded once."""
        if name not in self._columns:
            rows = self._rows
            if rows.in_memory:
                whole = cast(Array, getattr(rows.read(0, rows.length, (name,)), name))
            else:
                whole = make_array(rows.layout.shape(name, rows.length), rows.layout.make_column(name, 0).dtype)
                start = 0
                for part in read_chunks(rows, (name,)):
                    values = cast(Array, getattr(part, name))
                    whole[start : start + len(values)] = values
                    start += len(values)
            if name == "ids":
                require_unique(whole, f"Reading {rows.where or 'rows'}", StoreError)
                whole.flags.writeable = False  # since rows are looked up by it
            self._columns[name] = whole
        return self._columns[name]

    def _gather_ids(self) -> Array | range:
        """Return consecutive ids as a range, others as an array."""
        if self._ids is None:
            parts = read_chunks(self._rows, ("ids",)) if self.id_kind == "int" else ()
            self._ids = to_range(cast(Array, part.ids) for part in parts) or self._column("ids")
        return self._ids

    def _find_position(self, key: object) -> int | None:
        """Return the position of an id; ``None`` if it is not there."""
        if isinstance(key, bool) or not isinstance(key, str if self.id_kind == "str" else int | np.integer):
            return None
        if not isinstance(key, str):
            key = int(key)
            # An integer is first looked for at its own position, which needs no index. The row's probabilities lie in
            # the same part of a file, and are what is asked for next.
            if self._ids is None and 0 <= key < len(self):
                row = self._rows.read(key, key + 1, ("ids", "probs"))
                if cast(Array, row.ids)[0] == key:
                    return key
        ids = self._gather_ids()
        if isinstance(ids, range):
            return ids.index(cast(int, key)) if key in ids else None
        if self._index is None:
            self._index = IdIndex(ids)
        return self._index.find_position(key)

    def _describe_ids(self) -> str:
        """Return a hint for an error about an id that is not there."""
        kind = "text" if self.id_kind == "str" else "integers"
        if len(self) == 0:
            return "It has no rows."
        first, last = next(iter(self.slice(0, 1))), next(iter(self.slice(-1)))
        return (
            f"Its ids are {kind}, from {first!r} to {last!r} in order; rows by position are at .slice(a, b) and .probs."
        )


def _meta_of_rows(rows: Rows, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the meta of `rows`, from one that may be of others: of more rows of the run, or in another order."""
    own = {key: value for key, value in meta.items() if key not in _OF_ITS_ROWS_ALONE}
    if "rows" in own:
        own["rows"] = {"written": rows.length, "skipped": 0, "quarantined": 0}
    if isinstance(own.get("data"), Mapping):
        facts = {"length": rows.length, **rows.layout.as_dict()}
        own["data"] = {key: facts.get(key, value) for key, value in own["data"].items() if key != "fingerprint"}
    return own


def _are_same_bits(a: Array | None, b: Array | None) -> bool:
    if a is None or b is None:
        return a is b
    if a.dtype == np.float32 and b.dtype == np.float32:
        a, b = np.ascontiguousarray(a).view(np.uint32), np.ascontiguousarray(b).view(np.uint32)
    return bool(np.array_equal(a, b))


def _to_matrix(name: str, values: Any) -> NDArray[np.float32]:
    array = np.asarray(values)
    if array.ndim != 2 or array.shape[1] == 0 or array.dtype.kind not in "fiu":
        raise DataError(
            f"{_MAKING}: {name} of shape {array.shape} and dtype {array.dtype} were given; numbers of shape (n, classes) "
            "were expected."
        )
    return array.astype(np.float32, copy=False)


def _to_classes(labels: Any, n: int, k: int) -> NDArray[np.int64] | None:
    if labels is None:
        return None
    array = np.asarray(labels)
    if array.shape != (n,) or (n and array.dtype.kind not in "iu"):
        raise DataError(
            f"{_MAKING}: labels of shape {array.shape} and dtype {array.dtype} were given; {n} integers, one per row, were "
            "expected."
        )
    if n and not 0 <= int(array.min()) <= int(array.max()) < k:
        raise DataError(f"{_MAKING}: labels from {array.min()} to {array.max()}; classes are 0 … {k - 1}.")
    return array.astype(np.int64, copy=False)
