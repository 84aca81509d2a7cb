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

Numbers are the shortest text that reads back as the same float32. Text that this module wrote is decoded in blocks of
lines, when rows are asked for; any other JSON is parsed whole. Logits, where they were kept, stand like the
distributions under "logits", with numbers that are not finite as text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from ..errors import StoreError
from ..limits import check_sparse, limit
from ..rows import COLUMNS, Array, ArrayRows, Columns, Rows, chunks, duplicated, new_array, some
from .files import OutputFile
from .schema import (
    Layout,
    check_against_rows,
    check_meta,
    encode_meta,
    fits_record,
    minimal_meta,
    text_ids,
    with_flat_keys,
    without_flat_keys,
)

_HEAD, _SECTION_END, _FILE_END = b'{"meta":', b"},\n", b"}}\n"
_SECTIONS = {"distributions": "probs", "labels": "labels", "logits": "logits"}
_BLOCK_VALUES = 2**18


def write(rows: Rows, meta: Mapping[str, Any], file: OutputFile) -> None:
    """Writes all rows, in one pass for each section. Raises `StoreWriteError`."""
    layout = Layout.of(rows)
    file.write(_HEAD + encode_meta(with_flat_keys(meta), "JSON"))
    for section, column in _SECTIONS.items():
        if column not in layout.columns:
            continue
        file.write(f',\n"{section}":{{\n'.encode())
        separator = b""
        for part in chunks(rows, ("ids", column), _block_rows(layout.classes)):
            keys = [str(i) for i in cast(Array, part.ids).tolist()]
            file.write(separator + _lines(keys, cast(Array, getattr(part, column))))
            separator = b",\n"
        file.write(b"\n}")
    file.write(b"}\n")


def _block_rows(classes: int) -> int:
    return max(1, min(4096, _BLOCK_VALUES // classes))


def _lines(keys: list[str], values: Array) -> bytes:
    """One line ``"key":value`` per row, joined by commas."""
    import orjson

    if values.ndim == 1:
        return b",\n".join(orjson.dumps(k) + b":%d" % v for k, v in zip(keys, values.tolist(), strict=True))
    if not np.isfinite(values).all():
        return b",\n".join(orjson.dumps(k) + b":" + _with_text(row) for k, row in zip(keys, values, strict=True))
    text = orjson.dumps(dict(zip(keys, values, strict=True)), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
    if text.count(b'],"') == len(keys) - 1:
        return text.replace(b'],"', b'],\n"')
    # An id that ends in "]," looks like the end of a row.
    dumps: Callable[[Array], bytes] = lambda row: orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)  # noqa: E731
    return b",\n".join(orjson.dumps(k) + b":" + dumps(row) for k, row in zip(keys, values, strict=True))


def _with_text(row: Array) -> bytes:
    import orjson

    finite = [
        orjson.dumps(v, option=orjson.OPT_SERIALIZE_NUMPY) if np.isfinite(v) else b'"%s"' % str(v).encode() for v in row
    ]
    return b"[" + b",".join(finite) + b"]"


def read(path: Path) -> tuple[Rows, dict[str, Any]]:
    """The rows and meta; rows of a file that this module wrote are decoded when they are asked for.

    Raises:
        StoreError: For JSON of another kind, or of a newer schema. `FileRows` is the border for everything else.
    """
    check_sparse(path, StoreError)
    longest = limit("FO_ONNX_MAX_HEADER_BYTES")
    with path.open("rb") as file:
        first = file.readline(longest)
        file.seek(max(0, path.stat().st_size - len(_FILE_END)))
        ours = first.startswith(_HEAD) and first.endswith(_SECTION_END[1:]) and file.read() == _FILE_END
    if not ours:
        return _read_whole(path)
    meta = check_meta(without_flat_keys(_loads(first[len(_HEAD) :].rstrip().removesuffix(b","))), str(path))
    data, counts = meta["data"], meta.get("rows") or {}
    if "written" not in counts or "labels" not in data or "logits" not in data:
        return _read_whole(path)
    rows = JsonRows(path, meta)
    check_against_rows(meta, rows)
    return rows, meta


class JsonRows:
    """Rows of a file that `write` wrote, all decoded when the first of them is asked for.

    Args:
        path: The file.
        meta: Its meta, checked.

    Raises:
        StoreError: Where the file is too small for the rows that meta speaks of.
    """

    resident = True

    def __init__(self, path: Path, meta: Mapping[str, Any]) -> None:
        self.where, self._path = str(path), path
        self._rows: Rows | None = None
        data = meta["data"]
        self.id_kind, self.has_labels, self.has_logits = data["id_kind"], data["labels"], data["logits"]
        self.length = meta["rows"]["written"]
        names = (meta.get("model") or {}).get("class_names")
        self.classes = self._first_row() or len(names or ())
        if self.classes == 0:
            # A file without rows and without names of classes: nothing tells how many there would be.
            self.classes = int(data.get("classes") or 1)
        self.step = max(1, min(65_536, 2**22 // self.classes))
        size_bytes = path.stat().st_size
        # A row of probabilities takes a digit and a comma for each class, beside its id.
        if self.length * (2 * self.classes + len('"":[]')) > size_bytes:
            raise StoreError(
                f"Reading {path}: meta says {self.length} rows of {self.classes} classes, which {size_bytes} bytes "
                "cannot hold. The file is damaged or was edited."
            )

    @property
    def opens_by_name(self) -> bool:
        """Whether the file is still to be read."""
        return self._rows is None

    def read(self, start: int, stop: int, columns: Collection[str] = COLUMNS) -> Columns:
        """Views of the decoded arrays. Raises `StoreError` where the file is damaged."""
        if self._rows is None:
            self._rows = self._decode()
        return self._rows.read(start, stop, columns)

    def _first_row(self) -> int:
        """Number of classes of the first row; 0 where there is none."""
        with self._path.open("rb") as file:
            lines = [file.readline() for _ in range(3)]
            row = lines[2].strip().removesuffix(b",")
            return len(next(iter(_loads(b"{" + row + b"}").values()))) if row.startswith(b'"') else 0

    def _decode(self) -> Rows:
        layout = Layout.of(self)
        arrays: dict[str, Array] = {}
        with self._path.open("rb") as file:
            file.readline()
            for section, column in _SECTIONS.items():
                if column not in layout.columns:
                    continue
                if file.readline() != f'"{section}":{{\n'.encode():
                    raise StoreError(
                        f"Reading {self.where}: its {section} are not where they belong. The file is damaged."
                    )
                keys, arrays[column] = self._decode_section(file, column, section)
                if column == "probs":
                    texts = keys
                    _refuse_duplicates(texts, self.where)
                    ids = _ids_from_text(texts.tolist(), self.id_kind, self.where)
                elif not np.array_equal(texts, keys):
                    raise StoreError(f"Reading {self.where}: ids of {section} are not those of the distributions.")
        return ArrayRows(arrays["probs"], ids, arrays.get("labels"), arrays.get("logits"), where=self.where)

    def _decode_section(self, file: BinaryIO, column: str, section: str) -> tuple[Array, Array]:
        wide = column != "labels"
        values = new_array((self.length, self.classes) if wide else (self.length,), np.float32 if wide else np.int64)
        keys = np.empty(self.length, dtype=object)
        filled, more = 0, False
        for lines in _blocks(file, _block_rows(self.classes)):
            table = _loads(b"{" + b"".join(lines).rstrip().removesuffix(b",") + b"}")
            end = filled + len(table)
            if len(table) != len(lines):
                names = [line.split(b":", 1)[0].decode().strip('"') for line in lines]
                _refuse_duplicates(np.array(names, dtype=object), self.where)
                raise StoreError(
                    f"Reading {self.where}: {len(lines)} lines hold {len(table)} {section}. The file is damaged."
                )
            if end > self.length:
                more = True
                break
            keys[filled:end] = list(table)
            values[filled:end] = _numbers(list(table.values()), section, self.classes if wide else None, self.where)
            filled = end
        else:
            if filled == self.length:
                return keys, values
        raise StoreError(
            f"Reading {self.where}: meta says {self.length} rows, {section} holds {'more' if more else 'fewer'}. "
            "The file is damaged or was edited."
        )


def _blocks(file: BinaryIO, size: int) -> Iterator[list[bytes]]:
    """The lines of a section up to its end, some at a time."""
    lines: list[bytes] = []
    for line in file:
        if line.startswith(b"}"):
            break
        if line != b"\n":
            lines.append(line)
        if len(lines) == size:
            yield lines
            lines = []
    if lines:
        yield lines


def _read_whole(path: Path) -> tuple[Rows, dict[str, Any]]:
    """JSON that was written by something else, an older generator for example, or was formatted anew."""
    where = str(path)
    with path.open("rb") as file:
        table = json.load(file, object_pairs_hook=lambda pairs: _unique(pairs, where))
    if not isinstance(table, dict) or not isinstance(table.get("distributions"), dict):
        found = f"the keys {some(list(table))}" if isinstance(table, dict) else f"a {type(table).__name__}"
        raise StoreError(f"Reading {where}: JSON with {found}; an object with 'meta' and 'distributions' was expected.")
    meta, found = table.get("meta", {}), table["distributions"]
    keys = list(found)
    if isinstance(meta, dict) and "schema" not in meta:
        meta = _version_0(meta, keys)
    meta = check_meta(without_flat_keys(meta), where)
    classes = len(next(iter(found.values()))) if found and isinstance(next(iter(found.values())), list) else None
    names = (meta.get("model") or {}).get("class_names")
    columns: dict[str, Array] = {}
    for section, column in _SECTIONS.items():
        part = table.get(section)
        if part is None:
            continue
        if not isinstance(part, dict) or set(part) != set(keys):
            raise StoreError(f"Reading {where}: ids of {section} are not those of the distributions.")
        width = None if column == "labels" else classes or len(names or ()) or 1
        columns[column] = _numbers([part[k] for k in keys], section, width, where)
    ids = _ids_from_text(keys, meta["data"]["id_kind"], where)
    rows = ArrayRows(columns["probs"], ids, columns.get("labels"), columns.get("logits"), where=where)
    if meta["schema"] == 0:
        layout = Layout.of(rows)
        meta = {**minimal_meta(layout, rows.length), **meta, "data": minimal_meta(layout, rows.length)["data"]}
    check_against_rows(meta, rows)
    return rows, meta


def _version_0(meta: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    """Meta of the generator that came before: flat, and with keys that were numbers, or were not."""
    whole = all(k.removeprefix("-").isascii() and k.removeprefix("-").isdecimal() and str(int(k)) == k for k in keys)
    model = {
        key: value if fits_record(f"model.{key}", value) else None
        for key, value in (
            ("name", meta.get("model_name")),
            ("framework", meta.get("framework")),
            ("class_names", meta.get("class_names")),
        )
    }
    return {
        "schema": 0,
        "created": None,
        "fo_onnx": None,
        "model": model,
        "data": {"id_kind": "int" if whole else "str"},
        "user": meta,
    }


def _unique(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        _refuse_duplicates(np.array([k for k, _ in pairs], dtype=object), where)
    return table


def _refuse_duplicates(ids: Array, where: str) -> None:
    if doubled := duplicated(ids):
        raise StoreError(f"Reading {where}: duplicate ids, each may be there once: {some(doubled)}.")


def _ids_from_text(keys: list[str], kind: str, where: str) -> Array:
    if kind == "str":
        return text_ids(keys, where)
    try:
        numbers = np.array([int(k) for k in keys], dtype=np.int64)
    except (ValueError, OverflowError) as err:
        raise StoreError(f"Reading {where}: meta.data.id_kind is 'int', but an id is not ({err}).") from err
    _refuse_duplicates(numbers, where)
    return numbers


def _numbers(values: list[Any], section: str, classes: int | None, where: str) -> Array:
    """A column out of parsed JSON: (n, classes) float32, or (n,) int64 where `classes` is ``None``."""
    expected = "whole numbers" if classes is None else f"lists of {classes} numbers"
    try:
        if classes is None:
            if all(type(v) is int for v in values):
                return np.array(values, dtype=np.int64)
        elif values:
            with np.errstate(over="ignore"):
                table = np.array(values, dtype=np.float32)
            if table.shape == (len(values), classes):
                return table
        else:
            return np.empty((0, classes), dtype=np.float32)
    except (ValueError, TypeError, OverflowError) as err:
        raise StoreError(f"Reading {where}: {section} that are no {expected} ({err}).") from err
    raise StoreError(f"Reading {where}: {section} that are no {expected}, one per id.")


def _loads(text: bytes) -> Any:
    import orjson

    return orjson.loads(text)
