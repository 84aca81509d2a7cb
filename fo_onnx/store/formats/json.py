"""JSON: the format that everything reads, one row per line.

::

    {"meta":{…},
    "distributions":{
    "0":[0.25,0.75],
    …
    },
    "labels":{
    "0":1,
    …
    }}

Numbers are the shortest text that reads back as the same float32. Logits, if they were kept, stand like the distributions
under "logits", with numbers that are not finite as text. The file is read whole: large results belong in other formats.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from ...distributions.columns import Array, ArrayRows, Rows, read_chunks
from ...distributions.ids import normalise_ids, require_unique, shorten_list, to_object_array
from ...errors import StoreError
from ...guards.limits import check_sparse
from ..files import OutputFile
from ..schema import (
    FOR_LARGE_RESULTS,
    check_meta,
    encode_meta,
    fits_record,
    minimal_meta,
    with_flat_keys,
    without_flat_keys,
)

_SECTIONS = {"distributions": "probs", "labels": "labels", "logits": "logits"}
_CHUNK_VALUES = 2**18
_INTEGER = re.compile("0|-?[1-9][0-9]*")


def write_result(rows: Rows, meta: Mapping[str, Any], file: OutputFile) -> None:
    """Write all rows, in one pass for each section. Raises `StoreWriteError`."""
    layout = rows.layout
    file.write(b'{"meta":' + encode_meta(with_flat_keys(meta), "JSON"))
    step = max(1, min(4096, _CHUNK_VALUES // layout.classes))
    for section, column in _SECTIONS.items():
        if column not in layout.columns:
            continue
        # One line per row, so that a file can be read by people, and compared line by line.
        file.write(f',\n"{section}":{{\n'.encode())
        separator = b""
        for part in read_chunks(rows, ("ids", column), step):
            lines = _encode_lines(cast(Array, part.ids), cast(Array, getattr(part, column)))
            file.write(separator + b",\n".join(lines))
            separator = b",\n"
        file.write(b"\n}")
    file.write(b"}\n")


def _encode_lines(ids: Array, values: Array) -> list[bytes]:
    """Return one ``"id":value`` per row."""
    import orjson

    encode = partial(orjson.dumps, option=orjson.OPT_SERIALIZE_NUMPY)
    rows: Any = values.tolist() if values.ndim == 1 else np.ascontiguousarray(values)
    if not np.isfinite(values).all():
        # JSON has no infinity and no NaN.
        rows = [[v if np.isfinite(v) else str(v) for v in row] for row in values]
    return [orjson.dumps(str(i)) + b":" + encode(row) for i, row in zip(ids.tolist(), rows, strict=True)]


def read_result(path: Path) -> tuple[Rows, dict[str, Any]]:
    """Return the rows and meta of this module's files, of an older generator's, and of JSON that was formatted anew.

    Raises `StoreError`; `FileRows` is the border.
    """
    where = str(path)
    check_sparse(path, StoreError, FOR_LARGE_RESULTS)
    with path.open("rb") as file:
        table = json.load(file, object_pairs_hook=lambda pairs: _to_unique_dict(pairs, where))
    if not isinstance(table, dict) or not isinstance(table.get("distributions"), dict):
        content = f"the keys {shorten_list(list(table))}" if isinstance(table, dict) else f"a {type(table).__name__}"
        raise StoreError(
            f"Reading {where}: JSON with {content}; an object with 'meta' and 'distributions' was expected."
        )
    meta, keys = table.get("meta", {}), list(table["distributions"])
    if isinstance(meta, dict) and "schema" not in meta:
        meta = _upgrade_version_0(meta, keys)
    meta = check_meta(without_flat_keys(meta), where)
    # The first row tells how many classes there are; without rows, meta does.
    first = table["distributions"][keys[0]] if keys else (meta.get("model") or {}).get("class_names")
    classes = (len(first) if isinstance(first, list) else 0) or int(meta["data"].get("classes") or 1)
    columns = {"ids": _to_ids(keys, meta["data"]["id_kind"], where)}
    for section, column in _SECTIONS.items():
        part = table.get(section)
        if part is None:
            continue
        if not isinstance(part, dict) or part.keys() != table["distributions"].keys():
            raise StoreError(f"Reading {where}: ids of {section} are not those of the distributions.")
        columns[column] = _to_column([part[k] for k in keys], section, None if column == "labels" else classes, where)
    rows = ArrayRows(**columns, where=where)
    if meta["schema"] == 0:
        least = minimal_meta(rows.layout, rows.length)
        meta = {**least, **meta, "data": least["data"]}
    return rows, meta


def _upgrade_version_0(meta: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    """Return today's meta for that of the older generator: flat, and with keys that were numbers, or were not."""
    are_integers = all(map(_INTEGER.fullmatch, keys))
    flat = {"name": "model_name", "framework": "framework", "class_names": "class_names"}
    values = {key: meta.get(flat_key) for key, flat_key in flat.items()}
    return {
        "schema": 0,
        "created": None,
        "fo_onnx": None,
        "model": {key: value if fits_record(f"model.{key}", value) else None for key, value in values.items()},
        "data": {"id_kind": "int" if are_integers else "str"},
        "user": meta,
    }


def _to_unique_dict(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        require_unique(to_object_array(key for key, _ in pairs), f"Reading {where}", StoreError)
    return table


def _to_ids(keys: list[str], id_kind: str, where: str) -> Array:
    doing = f"Reading {where}"
    if id_kind == "str":
        return normalise_ids(keys, doing, StoreError)
    try:
        ids = np.array([int(key) for key in keys], dtype=np.int64)
    except (ValueError, OverflowError) as err:
        raise StoreError(
            f"{doing}: meta.data.id_kind is 'int', but an id is not, or does not fit 64 signed bits ({err})."
        ) from err
    require_unique(ids, doing, StoreError)
    return ids


def _to_column(values: list[Any], section: str, classes: int | None, where: str) -> Array:
    """Return a column of parsed JSON: (n, classes) float32, or (n,) int64 if `classes` is ``None``."""
    expected = "whole numbers" if classes is None else f"lists of {classes} numbers"
    try:
        if classes is None:
            if all(type(v) is int for v in values):
                return np.array(values, dtype=np.int64)
        else:
            with np.errstate(over="ignore"):
                table = np.array(values, dtype=np.float32) if values else np.empty((0, classes), dtype=np.float32)
            if table.shape == (len(values), classes):
                return table
    except (ValueError, TypeError, OverflowError) as err:
        raise StoreError(f"Reading {where}: {section} that are no {expected} ({err}).") from err
    raise StoreError(f"Reading {where}: {section} that are no {expected}, one per id.")
