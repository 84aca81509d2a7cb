"""Distributions: what a run gives, and what `load` gives.

One class distribution per sample, addressed by the sample's id. Files are decoded when rows are asked for, not before.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, OutputError, RowNotFoundError, StoreError
from .printable import escaped
from .rows import (
    COLUMNS,
    Array,
    ArrayRows,
    Columns,
    PartRows,
    ReorderedRows,
    Rows,
    SelectedRows,
    as_ids,
    chunks,
    duplicated,
    new_array,
    not_distributions,
    require_classes,
    some,
    strictly_increasing,
)

_OF_OTHER_ROWS = ("metrics", "digest", "complete", "part", "identity")
"""Keys of a meta that hold for just the rows that it was written with; by its identity a finished run is known again."""


class Distributions(Mapping[int | str, NDArray[np.float32]]):
    """One class distribution per sample: a mapping from ids to arrays (classes,), float32, in the order of the samples.

    Args:
        probs: (n, k) distributions; kept as float32.
        ids: (n,) integers or text, each once; the default is 0 … n − 1.
        labels: (n,) true classes in 0 … k − 1.
        logits: (n, k) unnormalised scores.
        meta: What is known about them, as JSON types; ``meta["model"]["class_names"]`` names the columns. It may be the
            meta of other rows: what it says of those alone (metrics, digest, counts, whether the run ended) is not taken.

    Raises:
        DataError: Where shapes do not fit, an id is there twice, or a label is no class.
        OutputError: Where a row is no distribution; names the ids.

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
        table = _matrix("probs", probs)
        n, k = table.shape
        kept_ids = None if ids is None else as_ids(ids, "Making Distributions")
        if kept_ids is not None:
            if len(kept_ids) != n:
                raise DataError(f"Making Distributions: {n} rows but {len(kept_ids)} ids; one id per row was expected.")
            if doubled := duplicated(kept_ids):
                raise DataError(f"Making Distributions: duplicate ids, each may be there once: {some(doubled)}.")
        scores = None if logits is None else _matrix("logits", logits)
        if scores is not None and scores.shape != (n, k):
            raise DataError(f"Making Distributions: logits of shape {scores.shape} beside probs of shape {(n, k)}.")
        rows = ArrayRows(table, kept_ids, _classes(labels, n, k), scores)
        if len(bad := not_distributions(table)):
            found = [rows.read(i, i + 1, ("ids",)).ids.tolist()[0] for i in bad.tolist()]  # type: ignore[union-attr]
            raise OutputError(
                f"Making Distributions: {len(bad)} of {n} rows are no distribution (finite, not negative, sum 1 within "
                f"0.001); ids {some(found)}. Logits become distributions with fo_onnx.probabilities.softmax."
            )
        self._start(rows, _meta_of(rows, meta or {}), trusted=True)

    @classmethod
    def from_rows(cls, rows: Rows, meta: Mapping[str, Any], *, trusted: bool = False) -> Distributions:
        """Distributions over rows that lie somewhere else, which are read when they are asked for.

        Args:
            rows: The rows.
            meta: What is known about just these rows.
            trusted: Whether rows were checked already; if not, they are checked as they are read.
        """
        new = cls.__new__(cls)
        new._start(rows, meta, trusted=trusted)
        return new

    def _start(self, rows: Rows, meta: Mapping[str, Any], *, trusted: bool) -> None:
        self._rows = rows
        self._trusted = trusted
        self.meta: dict[str, Any] = dict(meta)
        self._columns: dict[str, Array] = {}
        self._ids: Array | range | None = None
        self._index: _Index | None = None

    def __len__(self) -> int:
        """Number of rows."""
        return self._rows.length

    def __iter__(self) -> Iterator[int | str]:
        """The ids in order."""
        if self._ids is not None:
            yield from (self._ids if isinstance(self._ids, range) else self._ids.tolist())
            return
        for part in chunks(self._rows, ("ids",)):
            yield from cast(Array, part.ids).tolist()

    def __contains__(self, key: object) -> bool:
        """Whether there is a row with this id."""
        return self._find(key) is not None

    def __getitem__(self, key: int | str) -> NDArray[np.float32]:
        """The distribution (k,) of the row with this id, a copy. Raises `RowNotFoundError`."""
        position = self._find(key)
        if position is None:
            raise RowNotFoundError(f"There is no row with the id {key!r} in {self!r}. {self._id_hint(key)}")
        probs = self._columns.get("probs")
        if probs is None:
            probs, position = cast(Array, self._read(position, position + 1, ("ids", "probs")).probs), 0
        return cast("NDArray[np.float32]", probs[position].copy())

    def __eq__(self, other: object) -> bool:
        """Whether it is the same object: comparing arrays one by one has no single truth value; see `equals`."""
        return self is other

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        """A line for people; decodes nothing."""
        rows = self._rows
        extra = "".join(
            f", {name}" for name, there in (("labels", rows.has_labels), ("logits", rows.has_logits)) if there
        )
        source = f", from {escaped(rows.where)}" if rows.where else ""
        return f"Distributions({rows.length} rows × {rows.classes} classes, {rows.id_kind} ids{extra}{source})"

    def __getstate__(self) -> dict[str, Any]:
        """Without what can be decoded again, so that worker processes get the path and not the rows."""
        return self.__dict__ | {"_columns": {}, "_ids": None, "_index": None}

    @property
    def source(self) -> Rows:
        """The rows as columns by position, for writers and other readers that go through them in chunks."""
        return self._rows

    @property
    def classes(self) -> int:
        """Number of classes k."""
        return self._rows.classes

    @property
    def id_kind(self) -> str:
        """``"int"`` or ``"str"``."""
        return self._rows.id_kind

    @property
    def probs(self) -> NDArray[np.float32]:
        """(n, k) float32, decoded on first use; in a temporary file mapped into memory where it is large."""
        return cast("NDArray[np.float32]", self._column("probs"))

    @property
    def logits(self) -> NDArray[np.float32] | None:
        """(n, k) float32, or ``None`` where they were not kept."""
        return self._column("logits") if self._rows.has_logits else None

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """(n,) int64, or ``None`` where they are not known."""
        return self._column("labels") if self._rows.has_labels else None

    @property
    def ids(self) -> Array:
        """(n,) int64, or an object array of str. Raises `StoreError` where a file holds an id twice."""
        ids = self._known_ids()
        return np.arange(ids.start, ids.stop, dtype=np.int64) if isinstance(ids, range) else ids

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """One name per column, or ``None`` where they are not known."""
        names = (self.meta.get("model") or {}).get("class_names")
        return None if names is None else tuple(names)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """`probs`, for ``np.asarray`` and whatever else takes arrays, by numpy's protocol.

        Args:
            dtype: Another dtype than float32.
            copy: Whether the array must be a new one; ``None`` makes one where another dtype needs it.

        Raises:
            ValueError: `copy` is false, and `dtype` needs a copy.
        """
        probs = self.probs
        wanted = probs.dtype if dtype is None else np.dtype(dtype)
        if copy is False and wanted != probs.dtype:
            raise ValueError(f"distributions are float32, so that an array of {wanted} without a copy cannot be had.")
        return probs.astype(wanted, copy=bool(copy))

    def slice(self, start: int, stop: int | None = None) -> Distributions:
        """The rows at positions `start` to ``stop − 1``, as slicing a list takes them; nothing is copied or decoded.

        Their meta describes them, and not the rows that they were among: see `Distributions`.
        """
        first, last, _ = slice(start, stop).indices(len(self))
        return self._with(PartRows(self._rows, first, max(first, last)))

    def select(self, mask_or_ids: Any) -> Distributions:
        """Some of the rows; nothing is decoded. Their meta describes them, as that of `slice` does.

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
        as_array = hasattr(mask_or_ids, "__array__") and not isinstance(mask_or_ids, Mapping)
        chosen = np.asarray(mask_or_ids) if as_array else _object_array(mask_or_ids)
        if chosen.dtype == np.bool_ or (chosen.size and all(isinstance(v, bool | np.bool_) for v in chosen.flat)):
            if chosen.shape != (len(self),):
                raise DataError(
                    f"Selecting from {self!r}: a mask of shape {chosen.shape} was given; one truth value per row, shape "
                    f"({len(self)},), was expected."
                )
            return self._with(SelectedRows(self._rows, np.flatnonzero(chosen.astype(np.bool_))))
        return self._with(SelectedRows(self._rows, self._positions(chosen if chosen.size else _object_array([]))))

    def _positions(self, chosen: Array) -> NDArray[np.int64]:
        doing = f"Selecting from {self!r}"
        ids = as_ids(chosen, doing)
        if doubled := duplicated(ids):
            raise DataError(f"{doing}: ids that were given twice, each may be there once: {some(doubled)}.")
        self._known_ids()  # read once for all of them
        positions = [self._find(key) for key in ids.tolist()]
        unknown = [key for key, position in zip(ids.tolist(), positions, strict=True) if position is None]
        if unknown:
            raise DataError(f"{doing}: there are no rows with the ids {some(unknown)}. {self._id_hint(unknown[0])}")
        return np.asarray(positions, np.int64)

    def _with(self, rows: Rows) -> Distributions:
        """Other rows that were made of these."""
        return Distributions.from_rows(rows, _meta_of(rows, self.meta), trusted=self._trusted)

    def metrics(self) -> dict[str, Any]:
        """What the rows look like in numbers, with the keys of `fo_onnx.metrics.MetricsAccumulator.result`.

        Entropy, confidence and predicted class counts; where labels are known also accuracy, NLL, Brier score,
        calibration error and true class counts. What was recorded of these rows while their file was written is given
        without reading them.
        """
        if not self._has_metrics():
            from .metrics import MetricsAccumulator

            gathered = MetricsAccumulator(self.classes)
            for start in range(0, len(self), self._rows.step):
                part = self._read(start, min(start + self._rows.step, len(self)), ("ids", "probs", "labels"))
                gathered.update(cast(Array, part.probs), part.labels)
            self.meta["metrics"] = gathered.result()
        return cast("dict[str, Any]", copy.deepcopy(self.meta["metrics"]))

    def _has_metrics(self) -> bool:
        """Whether the metrics in meta can be those of these rows, with all that their labels give."""
        recorded = self.meta.get("metrics")
        if not isinstance(recorded, Mapping) or recorded.get("rows") != len(self):
            return False
        return "accuracy" in recorded or not self._rows.has_labels or len(self) == 0

    def to_dict(self) -> dict[int | str, list[float]]:
        """Ids and distributions as plain Python, in memory."""
        result: dict[int | str, list[float]] = {}
        for start in range(0, len(self), self._rows.step):
            part = self._read(start, min(start + self._rows.step, len(self)), ("ids", "probs"))
            result.update(zip(cast(Array, part.ids).tolist(), cast(Array, part.probs).tolist(), strict=True))
        return result

    def align(self, class_names: Sequence[str]) -> Distributions:
        """The same rows with their columns in the order of `class_names`; logits and labels follow.

        Raises:
            DataError: Where the names are not the same set (lists both differences), or no names are known.
        """
        own, wanted = self.class_names, tuple(class_names)
        if own is None:
            raise DataError(
                f"Aligning {self!r}: its class names are not known, so that its columns cannot be matched by name. "
                "Give class_names= when the model is exported or the rows are generated."
            )
        missing, extra = [n for n in wanted if n not in own], [n for n in own if n not in wanted]
        if missing or extra or len(wanted) != len(own):
            doubled = [] if missing or extra else sorted({n for n in wanted if wanted.count(n) > 1})
            raise DataError(
                f"Aligning {self!r}: the class names differ. Missing here: {some(missing) or 'none'}; "
                f"extra here: {some(extra) or 'none'}{f'; given twice: {some(doubled)}' if doubled else ''}."
            )
        aligned = self._with(ReorderedRows(self._rows, [own.index(n) for n in wanted]))
        aligned.meta["model"] = {**aligned.meta["model"], "class_names": list(wanted)}
        return aligned

    def equals(self, other: Distributions) -> bool:
        """Whether ids, probs, labels and logits are the same in every bit, and in the same order; meta may differ."""
        a, b = self._rows, other._rows
        shape = (a.length, a.classes, a.id_kind, a.has_labels, a.has_logits)
        if shape != (b.length, b.classes, b.id_kind, b.has_labels, b.has_logits):
            return False
        for start in range(0, a.length, a.step):
            stop = min(start + a.step, a.length)
            mine, theirs = a.read(start, stop), b.read(start, stop)
            if not all(_same_bits(getattr(mine, c), getattr(theirs, c)) for c in COLUMNS):
                return False
        return True

    def _read(self, start: int, stop: int, columns: Sequence[str]) -> Columns:
        part = self._rows.read(start, stop, columns)
        if not self._trusted and part.probs is not None and len(bad := not_distributions(part.probs)):
            ids = part.ids if part.ids is not None else cast(Array, self._rows.read(start, stop, ("ids",)).ids)
            raise StoreError(
                f"Reading {self._rows.where or 'rows'}: rows that are no distribution (finite, not negative, sum 1 "
                "within "
                f"0.001); ids {some(ids[bad].tolist())}. The file is damaged, or was not written by fo-onnx."
            )
        if not self._trusted and part.labels is not None:
            require_classes(part.labels, self.classes, self._rows.where)
        return part

    def _column(self, name: str) -> Array:
        if name not in self._columns:
            rows = self._rows
            if rows.resident:
                whole = cast(Array, getattr(rows.read(0, rows.length, (name,)), name))
                if name in ("probs", "labels") and not self._trusted:
                    for start in range(0, rows.length, rows.step):
                        self._read(start, min(start + rows.step, rows.length), (name,))
                self._columns[name] = whole
            else:
                wide = name in ("probs", "logits")
                shape = (rows.length, rows.classes) if wide else (rows.length,)
                target = new_array(shape, np.float32 if wide else np.int64)
                for start in range(0, rows.length, rows.step):
                    stop = min(start + rows.step, rows.length)
                    target[start:stop] = getattr(self._read(start, stop, (name,)), name)
                self._columns[name] = target
        return self._columns[name]

    def _known_ids(self) -> Array | range:
        if self._ids is None:
            self._ids = _gather_ids(self._rows)
        return self._ids

    def _find(self, key: object) -> int | None:
        """Position of an id. An integer is first looked for at its own position, which needs no index."""
        if isinstance(key, bool) or not isinstance(key, str if self.id_kind == "str" else int | np.integer):
            return None
        if not isinstance(key, str):
            key = int(key)
            if self._ids is None and 0 <= key < len(self):
                found = self._rows.read(key, key + 1, ("ids", "probs")).ids
                if cast(Array, found)[0] == key:
                    return key
        if self._index is None:
            self._index = _Index(self._known_ids())
        return self._index.position(key)

    def _id_hint(self, key: object) -> str:
        kind = "text" if self.id_kind == "str" else "integers"
        if len(self) == 0:
            return "It has no rows."
        first = cast(Array, self._rows.read(0, 1, ("ids",)).ids).tolist()[0]
        last = cast(Array, self._rows.read(len(self) - 1, len(self), ("ids",)).ids).tolist()[0]
        return (
            f"Its ids are {kind}, from {first!r} to {last!r} in order; rows by position are at .slice(a, b) and .probs."
        )


class _Index:
    """From ids to positions."""

    def __init__(self, ids: Array | range) -> None:
        self._range = ids if isinstance(ids, range) else None
        self._table: dict[str, int] = {}
        self._order: Array | None = None
        if isinstance(ids, range):
            return
        if ids.dtype.kind == "i":
            self._order = None if strictly_increasing(ids) else np.argsort(ids, kind="stable")
            self._sorted = ids if self._order is None else ids[self._order]
        else:
            self._table = {i: position for position, i in enumerate(ids.tolist())}

    def position(self, key: int | str) -> int | None:
        if self._range is not None:
            return self._range.index(cast(int, key)) if key in self._range else None
        if isinstance(key, str):
            return self._table.get(key)
        if not -(2**63) <= key < 2**63:
            return None
        place = int(np.searchsorted(self._sorted, key))
        if place == len(self._sorted) or self._sorted[place] != key:
            return None
        return place if self._order is None else int(self._order[place])


def _gather_ids(rows: Rows) -> Array | range:
    """All ids; consecutive integers as a range. Raises `StoreError` for duplicates."""
    parts: list[Array] = []
    consecutive: range | None = range(0)
    for part in chunks(rows, ("ids",)):
        ids = cast(Array, part.ids)
        if rows.id_kind == "int" and consecutive is not None:
            expected = consecutive.stop if len(consecutive) else int(ids[0])
            if ids[0] == expected and ids[-1] == expected + len(ids) - 1 and strictly_increasing(ids):
                consecutive = range(consecutive.start if len(consecutive) else expected, expected + len(ids))
                continue
            if len(consecutive):
                parts.append(np.arange(consecutive.start, consecutive.stop, dtype=np.int64))
        consecutive = None
        parts.append(ids)
    if rows.id_kind == "int" and consecutive is not None:
        return consecutive
    whole = np.concatenate(parts) if parts else np.empty(0, dtype=object)
    if doubled := duplicated(whole):
        raise StoreError(f"Reading {rows.where or 'rows'}: duplicate ids, each may be there once: {some(doubled)}.")
    return whole


def _object_array(values: Iterable[Any]) -> Array:
    """Values as they are: numpy would turn [1, "a"] into two texts."""
    listed = list(values)
    array = np.empty(len(listed), dtype=object)
    array[:] = listed
    return array


def _meta_of(rows: Rows, meta: Mapping[str, Any]) -> dict[str, Any]:
    """The meta of `rows`, from one that may be of others: of the same run, but of more rows, or in another order."""
    kept = {key: value for key, value in meta.items() if key not in _OF_OTHER_ROWS}
    if "rows" in kept:
        kept["rows"] = {"written": rows.length, "skipped": 0, "quarantined": 0}
    if isinstance(kept.get("data"), Mapping):
        own = {
            "length": rows.length,
            "classes": rows.classes,
            "id_kind": rows.id_kind,
            "labels": rows.has_labels,
            "logits": rows.has_logits,
        }
        kept["data"] = {key: own.get(key, value) for key, value in kept["data"].items() if key != "fingerprint"}
    return kept


def _same_bits(a: Array | None, b: Array | None) -> bool:
    if a is None or b is None:
        return a is b
    if a.dtype == np.float32 and b.dtype == np.float32:
        a, b = np.ascontiguousarray(a).view(np.uint32), np.ascontiguousarray(b).view(np.uint32)
    return bool(np.array_equal(a, b))


def _matrix(name: str, values: Any) -> NDArray[np.float32]:
    array = np.asarray(values)
    if array.ndim != 2 or array.shape[1] == 0 or array.dtype.kind not in "fiu":
        raise DataError(
            f"Making Distributions: {name} of shape {array.shape} and dtype {array.dtype} were given; "
            "numbers of shape (n, classes) were expected."
        )
    return array.astype(np.float32, copy=False)


def _classes(labels: Any, n: int, k: int) -> NDArray[np.int64] | None:
    if labels is None:
        return None
    array = np.asarray(labels)
    if array.shape != (n,) or (n and array.dtype.kind not in "iu"):
        raise DataError(
            f"Making Distributions: labels of shape {array.shape} and dtype {array.dtype} were given; {n} integers, "
            f"one per row, were expected."
        )
    if n and not 0 <= int(array.min()) <= int(array.max()) < k:
        raise DataError(f"Making Distributions: labels from {array.min()} to {array.max()}; classes are 0 … {k - 1}.")
    return array.astype(np.int64, copy=False)
