"""The record that stands in a file besides the rows: its version, its parts, and how it is checked on reading.

Version 1 is what `docs/files.md` lists under "meta". Version 0 is the JSON of the generator that came before, which had
no version.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from ..distributions.columns import Layout, Rows
from ..errors import StoreError, reading
from ..version import __version__

SCHEMA_VERSION = 1
META_KEY = "fo_onnx"
FOR_LARGE_RESULTS = "Large results belong in Parquet, .npy or a run folder, which are not read whole."
EMPTY_CLASSES = 2**22
"""The most classes that a result without rows may have: nothing in the file shows that there are so many."""
SECTIONS = (
    "schema", "created", "fo_onnx", "model", "data", "runner", "engine", "parity", "rows", "timing", "versions", "user",
    "metrics", "complete", "part",
)  # fmt: skip


def minimal_meta(layout: Layout, length: int | None, *, foreign: bool = False) -> dict[str, Any]:
    """Return the meta of rows of which nothing else is known.

    Args:
        layout: Their columns.
        length: Their number, if it is known.
        foreign: Whether they lie in a file that fo-onnx did not write.
    """
    meta: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "created": None if foreign else datetime.now(UTC).isoformat(timespec="seconds"),
        "fo_onnx": None if foreign else __version__,
        "model": {"name": None, "framework": None, "class_names": None},
        "data": {"length": length, **layout.as_dict()},
        "user": {},
    }
    if length is not None:
        meta["rows"] = {"written": length, "skipped": 0, "quarantined": 0}
    return meta


def complete_meta(meta: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
    """Return `meta` with what every file needs; what contradicts the rows is replaced."""
    layout = rows.layout
    base = minimal_meta(layout, rows.length)
    counts = meta.get("rows") or {}
    if counts.get("written") != rows.length:
        counts = base["rows"]
    full = {**base, **meta, "schema": SCHEMA_VERSION, "rows": counts}
    for key in ("created", "fo_onnx"):
        # What was read from a file of another program is written by this one now.
        full[key] = full[key] or base[key]
    length = rows.length + (counts.get("skipped") or 0) + (counts.get("quarantined") or 0)
    full["data"] = {**base["data"], "length": length, **(meta.get("data") or {}), **layout.as_dict()}
    return full


def encode_meta(meta: Mapping[str, Any], where: str) -> bytes:
    """Return `meta` as JSON. Numbers that are not finite become null.

    Raises:
        StoreError: A value that JSON does not have; names its place.
    """
    import orjson

    try:
        return orjson.dumps(dict(meta), option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as err:
        place = _locate_misfit(meta, "meta")
        raise StoreError(
            f"Writing {where}: {place or 'meta'} cannot be written as JSON ({err}). Text, numbers, true, false, null, "
            "lists and dicts with text keys were expected."
        ) from err


def _locate_misfit(value: Any, place: str) -> str | None:
    """Return where in nested dicts and lists the first value lies that JSON does not have."""
    import orjson

    if not isinstance(value, Mapping | list | tuple):
        try:
            orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
        except TypeError:
            return f"{place}, a {type(value).__name__},"
        return None
    for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
        if isinstance(value, Mapping) and not isinstance(key, str):
            return f"the key {key!r} of {place}"
        if misfit := _locate_misfit(inner, f"{place}[{key!r}]"):
            return misfit
    return None


def decode_meta(text: bytes | str, where: str) -> dict[str, Any]:
    """Return the meta in a file, checked by `check_meta`."""
    import orjson

    with reading(f"{where}, its meta", StoreError):
        meta = orjson.loads(text)
    return check_meta(meta, where)


def check_meta(meta: Any, where: str, doing: str = "Reading") -> dict[str, Any]:
    """Return the meta of the file `where` as it is, if this version can read it.

    Raises:
        StoreError: A newer schema, no meta of this project, missing keys, or values of another type than the schema has
            there.
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
    check_version(meta, f"{doing} {where}", "meta.schema", oldest=0)
    # The kind of ids cannot be left out: without it, text that looks like numbers could be either.
    data = meta.get("data")
    if not isinstance(data, dict) or data.get("id_kind") not in ("int", "str"):
        raise StoreError(
            f"{doing} {where}: meta.data.id_kind is missing or neither 'int' nor 'str'; schema {meta['schema']} has it. "
            "The file is damaged, or was not written by fo-onnx."
        )
    # Everything else may be missing, but is what the schema says if it is there.
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


def check_version(table: Mapping[str, Any], doing: str, name: str, *, oldest: int = 1) -> None:
    """Raise a `StoreError` if this version cannot read a table, by its ``schema``, which messages call `name`."""
    version = table.get("schema")
    if type(version) is not int or version < oldest:
        raise StoreError(
            f"{doing}: {name} is {version!r}; a version number was expected. It is damaged, or not of fo-onnx."
        )
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{doing}: it has schema {version}, written by a newer fo-onnx ({table.get('fo_onnx', 'unknown')}); this one "
            f"reads up to {SCHEMA_VERSION}. Upgrade with: pip install -U fo-onnx"
        )


def fits_record(place: str, value: Any) -> bool:
    """Return whether a value may stand at a place of meta such as ``"model.name"``."""
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
"""The types of the values in meta, in the order of `docs/files.md`, and how a message calls them."""


def check_against_rows(meta: Mapping[str, Any], rows: Rows) -> None:
    """Raise a `StoreError` if `meta` speaks of other columns or another number of rows than there are."""
    data, layout = meta["data"], rows.layout
    written = (meta.get("rows") or {}).get("written")
    names = (meta.get("model") or {}).get("class_names")
    problems = []
    if data["id_kind"] != layout.id_kind:
        problems.append(f"meta says {data['id_kind']} ids, the file holds {layout.id_kind} ids")
    for name, is_there in (("labels", layout.labels), ("logits", layout.logits)):
        if data.get(name, is_there) != is_there:
            said, there = ("", "none") if data[name] else ("no ", "them")
            problems.append(f"meta says that there are {said}{name}, the file holds {there}")
    if written is not None and written != rows.length:
        problems.append(f"meta says {written} rows, the file holds {rows.length}")
    if names is not None and len(names) != layout.classes:
        problems.append(f"meta names {len(names)} classes, the rows have {layout.classes}")
    # Nothing in a file without rows shows that it has so many classes, and arrays are made for them.
    if rows.length == 0 and layout.classes > max(EMPTY_CLASSES, len(names or ())):
        problems.append(f"no rows of {layout.classes} classes; a result without rows has at most {EMPTY_CLASSES}")
    if problems:
        raise StoreError(f"Reading {rows.where}: {'; '.join(problems)}. The file is damaged or was edited.")


def with_flat_keys(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return `meta` as JSON files have it: `model_name`, `framework` and the user's own keys also stand at the top."""
    return {**meta, **{k: v for k, v in _flatten(meta).items() if k not in meta}}


def without_flat_keys(meta: Any) -> Any:
    """Return `meta` without what `with_flat_keys` added: keys at the top that only repeat what stands in a section.

    What is no object is left for `check_meta` to refuse.
    """
    if not isinstance(meta, Mapping):
        return meta
    flat = _flatten(meta)
    return {k: v for k, v in meta.items() if k in SECTIONS or k not in flat or not same_json(flat[k], v)}


def _flatten(meta: Mapping[str, Any]) -> dict[str, Any]:
    model, own = (v if isinstance(v, dict) else {} for v in (meta.get("model"), meta.get("user")))
    named = {"model_name": model.get("name"), "framework": model.get("framework")}
    user = {k: v for k, v in own.items() if k not in SECTIONS}
    return {**{k: v for k, v in named.items() if v is not None}, **user}


def same_json(a: Any, b: Any, tolerance: float = 0.0) -> bool:
    """Return whether two JSON values are the same; numbers may differ by `tolerance`, relative to the larger or to 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_json(a[k], b[k], tolerance) for k in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same_json(x, y, tolerance) for x, y in zip(a, b, strict=True))
    if isinstance(a, float | int) and isinstance(b, float | int) and tolerance:
        return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
    return bool(a == b)


def differences(old: Any, new: Any, place: str = "") -> dict[str, tuple[Any, Any]]:
    """Return where two JSON values differ, by dotted keys: the old value and the new one."""
    if isinstance(old, dict) and isinstance(new, dict):
        changed: dict[str, tuple[Any, Any]] = {}
        for key in [*old, *(k for k in new if k not in old)]:
            changed |= differences(old.get(key), new.get(key), f"{place}.{key}" if place else str(key))
        return changed
    return {} if old == new else {place: (old, new)}
