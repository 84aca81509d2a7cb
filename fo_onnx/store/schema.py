"""What stands in a file beside the rows: the schema version, and meta as it is checked on reading.

Version 1 is what `docs/spec.md` lists under "meta". Version 0 is the JSON of the generator that came before, which had
no version.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from ..errors import StoreError
from ..rows import Rows
from ..version import __version__

SCHEMA_VERSION = 1
META_KEY = "fo_onnx"
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


def minimal_meta(layout: Layout, length: int | None) -> dict[str, Any]:
    """What can be said about rows of which nothing else is known.

    Args:
        layout: Their columns.
        length: Their number, where it is known.
    """
    meta: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "fo_onnx": __version__,
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


def check_meta(meta: Any, where: str) -> dict[str, Any]:
    """`meta` as it is, if this version can read it.

    Raises:
        StoreError: For a newer schema, for what is no meta of this project, and for missing keys.
    """
    if not isinstance(meta, dict):
        raise StoreError(
            f"Reading {where}: its meta is a {type(meta).__name__}; a file of fo-onnx has an object there."
        )
    if "schema" not in meta:
        raise StoreError(
            f"Reading {where}: its meta has no 'schema', so that it is no file of fo-onnx, or one whose meta was "
            "replaced. "
            f"Found: {', '.join(map(str, list(meta)[:10])) or 'nothing'}."
        )
    version = meta["schema"]
    if isinstance(version, bool) or not isinstance(version, int) or version < 0:
        raise StoreError(
            f"Reading {where}: meta.schema is {version!r}; a version number was expected. The file is damaged."
        )
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"Reading {where}: it has schema {version}, written by a newer fo-onnx "
            f"({meta.get('fo_onnx', 'unknown')}); this "
            f"one reads up to {SCHEMA_VERSION}. Upgrade with: pip install -U fo-onnx"
        )
    data = meta.get("data")
    if not isinstance(data, dict) or data.get("id_kind") not in ("int", "str"):
        raise StoreError(
            f"Reading {where}: meta.data.id_kind is missing or neither 'int' nor 'str'; schema {version} has it. "
            "The file is damaged, or was not written by fo-onnx."
        )
    for section in ("model", "rows", "user"):
        if not isinstance(meta.get(section, {}), dict):
            raise StoreError(
                f"Reading {where}: meta.{section} is a {type(meta[section]).__name__}; an object was expected."
            )
    return meta


def check_against_rows(meta: Mapping[str, Any], rows: Rows) -> None:
    """Raises a `StoreError` where `meta` speaks of other columns or another number of rows than there are."""
    data = meta["data"]
    if data["id_kind"] != rows.id_kind:
        raise StoreError(f"Reading {rows.where}: meta says {data['id_kind']} ids, the file holds {rows.id_kind} ids.")
    written = (meta.get("rows") or {}).get("written")
    if written is not None and written != rows.length:
        raise StoreError(
            f"Reading {rows.where}: meta says {written} rows, the file holds {rows.length}. The file is damaged or "
            "was edited."
        )
    names = (meta.get("model") or {}).get("class_names")
    if names is not None and len(names) != rows.classes:
        raise StoreError(f"Reading {rows.where}: meta names {len(names)} classes, the rows have {rows.classes}.")


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
