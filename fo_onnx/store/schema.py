"""What stands in a file beside the rows: the schema version, and meta as it is checked on reading.

Version 1 is what `docs/spec.md` lists under "meta". Version 0 is the JSON of the generator that came before, which had
no version.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ..errors import StoreError
from ..rows import Array, Rows, some
from ..version import __version__

SCHEMA_VERSION = 1
META_KEY = "fo_onnx"
EMPTY_CLASSES = 2**22
"""The most classes that a result without rows may have: nothing in the file shows that there are so many."""
SECTIONS = (
    "schema", "created", "fo_onnx", "model", "data", "runner", "engine", "parity", "rows", "timing", "versions", "user",
    "metrics", "complete", "part",
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """Which columns there are.

    Attributes:
        classes: Number of classes k.
        id_kind: ``"int"`` or ``"str"``.
        labels: Whether there are labels.
        logits: Whether there are logits.
    """

    classes: int
    id_kind: str
    labels: bool
    logits: bool

    @classmethod
    def of(cls, rows: Rows) -> Layout:
        """The layout of rows that are there."""
        return cls(rows.classes, rows.id_kind, rows.has_labels, rows.has_logits)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that are there."""
        there = {"ids": True, "probs": True, "labels": self.labels, "logits": self.logits}
        return tuple(name for name, kept in there.items() if kept)

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)


def minimal_meta(layout: Layout, length: int | None, *, foreign: bool = False) -> dict[str, Any]:
    """What can be said about rows of which nothing else is known.

    Args:
        layout: Their columns.
        length: Their number, where it is known.
        foreign: Whether they lie in a file that fo-onnx did not write.
    """
    meta: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "created": None if foreign else datetime.now(UTC).isoformat(timespec="seconds"),
        "fo_onnx": None if foreign else __version__,
        "model": {"name": None, "framework": None, "class_names": None},
        "data": {"length": length, **_columns(layout)},
        "user": {},
    }
    if length is not None:
        meta["rows"] = {"written": length, "skipped": 0, "quarantined": 0}
    return meta


def complete_meta(meta: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
    """`meta` with what every file needs, where it is not there already; what contradicts the rows is replaced."""
    layout = Layout.of(rows)
    base = minimal_meta(layout, rows.length)
    counts = meta.get("rows") or {}
    if counts.get("written") != rows.length:
        counts = base["rows"]
    full = {**base, **meta, "schema": SCHEMA_VERSION, "rows": counts}
    for key in ("created", "fo_onnx"):
        # What was read from a file of another program is written by this one now.
        full[key] = full[key] or base[key]
    length = rows.length + (counts.get("skipped") or 0) + (counts.get("quarantined") or 0)
    full["data"] = {**base["data"], "length": length, **(meta.get("data") or {}), **_columns(layout)}
    return full


def _columns(layout: Layout) -> dict[str, Any]:
    return {"id_kind": layout.id_kind, "labels": layout.labels, "logits": layout.logits, "classes": layout.classes}


def encode_meta(meta: Mapping[str, Any], where: str) -> bytes:
    """`meta` as JSON. Numbers that are not finite become null.

    Raises:
        StoreError: For a value that JSON does not have; names its place.
    """
    import orjson

    try:
        return orjson.dumps(dict(meta), option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as err:
        place = _misfit(meta, "meta")
        raise StoreError(
            f"Writing {where}: {place or 'meta'} cannot be written as JSON ({err}). Text, numbers, true, false, null, "
            "lists "
            "and dicts with text keys were expected."
        ) from err


def _misfit(value: Any, place: str) -> str | None:
    """Where in nested dicts and lists the first value lies that JSON does not have."""
    import orjson

    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                return f"the key {key!r} of {place}"
            if found := _misfit(inner, f"{place}[{key!r}]"):
                return found
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            if found := _misfit(inner, f"{place}[{i}]"):
                return found
    else:
        try:
            orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
        except TypeError:
            return f"{place}, a {type(value).__name__},"
    return None


def decode_meta(text: bytes | str, where: str) -> dict[str, Any]:
    """The meta in a file, checked by `check_meta`."""
    import orjson

    try:
        meta = orjson.loads(text)
    except orjson.JSONDecodeError as err:
        raise StoreError(f"Reading {where}: its meta is no JSON ({err}). The file is damaged.") from err
    return check_meta(meta, where)


def check_meta(meta: Any, where: str, doing: str = "Reading") -> dict[str, Any]:
    """`meta` as it is, if this version can read it.

    Args:
        meta: What stands in the file.
        where: The file, for messages.
        doing: What is being done, likewise.

    Raises:
        StoreError: For a newer schema, for what is no meta of this project, for missing keys and for values of another
            type than the schema has there.
    """
    if not isinstance(meta, dict):
        raise StoreError(
            f"{doing} {where}: its meta is a {type(meta).__name__}; a file of fo-onnx has an object there."
        )
    if "schema" not in meta:
        raise StoreError(
            f"{doing} {where}: its meta has no 'schema', so that it is no file of fo-onnx, or one whose meta was "
            f"replaced. Found: {', '.join(map(str, list(meta)[:10])) or 'nothing'}."
        )
    version = meta["schema"]
    if isinstance(version, bool) or not isinstance(version, int) or version < 0:
        raise StoreError(
            f"{doing} {where}: meta.schema is {version!r}; a version number was expected. The file is damaged."
        )
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{doing} {where}: it has schema {version}, written by a newer fo-onnx "
            f"({meta.get('fo_onnx', 'unknown')}); this one reads up to {SCHEMA_VERSION}. Upgrade with: pip install -U "
            "fo-onnx"
        )
    data = meta.get("data")
    if not isinstance(data, dict) or data.get("id_kind") not in ("int", "str"):
        raise StoreError(
            f"{doing} {where}: meta.data.id_kind is missing or neither 'int' nor 'str'; schema {version} has it. "
            "The file is damaged, or was not written by fo-onnx."
        )
    for place, (fits, expected) in _RECORD.items():
        section, _, key = place.partition(".")
        table = (meta.get(section) or {}) if key else meta
        name = key or section
        if name in table and not fits(table[name]):
            value = table[name]
            large = isinstance(value, dict | list) or expected.startswith("an object")
            shown = f"a {type(value).__name__}" if large else repr(value)[:100]
            raise StoreError(
                f"{doing} {where}: meta.{place} is {shown}; {expected} was expected. The file is damaged or was edited."
            )
    return meta


def fits_record(place: str, value: Any) -> bool:
    """Whether a value may stand at a place of meta such as ``"model.name"``."""
    return _RECORD[place][0](value)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(v, str) for v in value) and len(set(value)) == len(value)


def _is_spread(value: Any) -> bool:
    return isinstance(value, dict) and all(value.get(k) is None or _is_number(value[k]) for k in ("mean", "min", "max"))


def _or_null(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


_COUNT = (_is_count, "a number of rows")
_FLAG = (lambda value: isinstance(value, bool), "true or false")
_TABLE = (lambda value: isinstance(value, dict), "an object")
_OPTIONAL = (_or_null(_TABLE[0]), "an object or null")
_TEXT = (_or_null(lambda value: isinstance(value, str)), "text or null")
_NUMBER = (_or_null(_is_number), "a number or null")
_POSITION = (_or_null(_is_count), "a number of rows or null")
_COUNTS = (lambda value: isinstance(value, list | tuple) and all(map(_is_count, value)), "a list of numbers of rows")
_SPREAD = (_is_spread, "an object of numbers")

_RECORD: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "created": _TEXT, "fo_onnx": _TEXT, "complete": _FLAG,
    "model": _TABLE, "model.name": _TEXT, "model.framework": _TEXT,
    "model.class_names": (_or_null(_are_names), "a list of different names or null"),
    "data.length": _POSITION, "data.labels": _FLAG, "data.logits": _FLAG, "data.preprocessing": _OPTIONAL,
    "data.classes": (lambda value: _is_count(value) and 0 < value < 2**31, "a number of classes"),
    "rows": _TABLE, "rows.written": _COUNT, "rows.skipped": _COUNT, "rows.quarantined": _COUNT,
    "runner": _OPTIONAL, "runner.switched_at": _POSITION, "engine": _OPTIONAL, "parity": _OPTIONAL,
    **{f"parity.{k}": _NUMBER for k in ("rows", "max_tv", "p99_tv", "mean_tv", "max_kl", "argmax_flips", "tolerance",
                                        "row_spread", "uniform_distance", "original_gap")},
    "timing": _OPTIONAL, **{f"timing.{k}": _NUMBER for k in ("export_s", "first_row_s", "total_s", "rows_per_s")},
    "versions": _OPTIONAL, "identity": _OPTIONAL, "user": _TABLE,
    "metrics": (lambda value: isinstance(value, dict) and {"rows", "entropy", "confidence"} <= value.keys(),
                "an object with rows, entropy and confidence"),
    "metrics.rows": _COUNT, "metrics.entropy": _SPREAD, "metrics.confidence": _SPREAD,
    "metrics.predicted_classes": _COUNTS, "metrics.true_classes": _COUNTS, "metrics.labelled_rows": _COUNT,
    **{f"metrics.{k}": _NUMBER for k in ("accuracy", "nll", "brier", "ece")},
}  # fmt: skip
"""What meta may hold where it is there, in the order of `docs/spec.md`, and how that is called in a message."""


def check_against_rows(meta: Mapping[str, Any], rows: Rows) -> None:
    """Raises a `StoreError` where `meta` speaks of other columns or another number of rows than there are."""
    data = meta["data"]
    if data["id_kind"] != rows.id_kind:
        raise StoreError(f"Reading {rows.where}: meta says {data['id_kind']} ids, the file holds {rows.id_kind} ids.")
    for name, there in (("labels", rows.has_labels), ("logits", rows.has_logits)):
        if data.get(name, there) != there:
            raise StoreError(
                f"Reading {rows.where}: meta says that there are {'' if data[name] else 'no '}{name}, the file holds "
                f"{'them' if there else 'none'}. The file is damaged or was edited."
            )
    written = (meta.get("rows") or {}).get("written")
    if written is not None and written != rows.length:
        raise StoreError(
            f"Reading {rows.where}: meta says {written} rows, the file holds {rows.length}. The file is damaged or "
            "was edited."
        )
    names = (meta.get("model") or {}).get("class_names")
    if names is not None and len(names) != rows.classes:
        raise StoreError(f"Reading {rows.where}: meta names {len(names)} classes, the rows have {rows.classes}.")
    if rows.length == 0 and rows.classes > max(EMPTY_CLASSES, len(names or ())):
        raise StoreError(
            f"Reading {rows.where}: no rows of {rows.classes} classes; a result without rows has at most "
            f"{EMPTY_CLASSES}. The file is damaged."
        )


def text_ids(values: list[str], where: str) -> Array:
    """Text ids as an object array (n,). Raises `StoreError` for what is no text, or no valid Unicode."""
    odd = [v for v in values if not isinstance(v, str)]
    if not odd:
        try:
            "".join(values).encode()
        except UnicodeEncodeError:
            odd = [v for v in values if not _is_unicode(v)]
    if odd:
        raise StoreError(f"Reading {where}: ids that are no text: {some(odd)}. The file is damaged.")
    ids = np.empty(len(values), dtype=object)
    ids[:] = values
    return ids


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


def with_flat_keys(meta: Mapping[str, Any]) -> dict[str, Any]:
    """`meta` as JSON files have it: `model_name`, `framework` and the user's own keys also stand at the top."""
    return {**meta, **{k: v for k, v in _flat(meta).items() if k not in meta}}


def without_flat_keys(meta: Any) -> Any:
    """The reverse of `with_flat_keys`: keys at the top that only repeat what stands in a section are taken away.

    What is no object is left for `check_meta` to refuse.
    """
    if not isinstance(meta, Mapping):
        return meta
    flat = _flat(meta)
    return {k: v for k, v in meta.items() if k in SECTIONS or k not in flat or not same_json(flat[k], v)}


def _flat(meta: Mapping[str, Any]) -> dict[str, Any]:
    model, own = (v if isinstance(v, dict) else {} for v in (meta.get("model"), meta.get("user")))
    named = {"model_name": model.get("name"), "framework": model.get("framework")}
    user = {k: v for k, v in own.items() if k not in SECTIONS}
    return {**{k: v for k, v in named.items() if v is not None}, **user}


def same_json(a: Any, b: Any, tolerance: float = 0.0) -> bool:
    """Whether two JSON values are the same; numbers may differ by `tolerance`, relative to the larger or to 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_json(a[k], b[k], tolerance) for k in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same_json(x, y, tolerance) for x, y in zip(a, b, strict=True))
    if isinstance(a, float | int) and isinstance(b, float | int) and tolerance:
        return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
    return bool(a == b)
