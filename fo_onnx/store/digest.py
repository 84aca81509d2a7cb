"""Digests of the rows and of their record, by which a change is seen in every format.

A file carries them as ``meta["digest"] = {"rows": …, "meta": …}``, both SHA-256. They say what was written, not who wrote
it: they guard against damage and edits by mistake, not against somebody who computes them again.
# source: NIST FIPS 180-4, Secure Hash Standard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from ..distributions.columns import Array, Columns, Layout
from .schema import check_meta, encode_meta, without_flat_keys

KEY = "digest"
_LEFT_OUT = (KEY, "complete")
"""Keys that are no part of the record itself: the digest, and whether its run is at its end."""


class RowDigest:
    """The digest of rows that come one batch after another; how they are cut makes no difference.

    Every column has a digest of its own: numbers as little-endian bytes, text ids as their lengths and their UTF-8.

    Args:
        layout: The columns; their names, the number of classes and the kind of ids are part of the digest.

    Example:
        >>> import numpy as np
        >>> digest = RowDigest(Layout(2, "int", labels=False, logits=False))
        >>> digest.update(Columns(np.array([0]), np.array([[0.25, 0.75]], dtype=np.float32)))
        >>> digest.result()[:8]
        '0ba57df9'
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._rows = 0
        self._columns = {name: hashlib.sha256() for name in layout.columns}
        self._lengths = hashlib.sha256()

    def update(self, columns: Columns) -> None:
        """Take the next rows: every column of the layout, ids (n,), probs (n, k), labels (n,), logits (n, k)."""
        self._rows += len(cast(Array, columns.probs))
        for name, digest in self._columns.items():
            values = cast(Array, getattr(columns, name))
            if name == "ids" and self._layout.id_kind == "str":
                # Lengths tell ["ab", "c"] from ["a", "bc"].
                texts = [text.encode() for text in values.tolist()]
                self._lengths.update(np.fromiter(map(len, texts), dtype="<i8", count=len(texts)).data)
                digest.update(b"".join(texts))
                continue
            wide = name in ("probs", "logits")
            numbers = np.ascontiguousarray(values, dtype="<f4" if wide else "<i8")
            if name == "logits" and np.isnan(numbers).any():
                # Not every format keeps which of the many NaN it is.
                numbers = np.where(np.isnan(numbers), np.float32(np.nan), numbers)
            digest.update(numbers.reshape(-1).view(np.uint8).data)

    def result(self) -> str:
        """Return the digest of all rows so far, in hexadecimal."""
        parts = [f"{name} {digest.hexdigest()}" for name, digest in self._columns.items()]
        layout = self._layout
        head = f"{self._rows} rows, {layout.classes} classes, {layout.id_kind} ids {self._lengths.hexdigest()}"
        return hashlib.sha256("\n".join([head, *parts]).encode()).hexdigest()


def digest_meta(meta: Mapping[str, Any]) -> str:
    """Return the digest of a record as it reads back from a file: JSON with sorted keys, in hexadecimal."""
    import orjson

    rest = {key: value for key, value in without_flat_keys(meta).items() if key not in _LEFT_OUT}
    return hashlib.sha256(orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)).hexdigest()


def seal_meta(meta: Mapping[str, Any], row_digest: str, where: str) -> dict[str, Any]:
    """Return `meta` with both digests, after it was checked that it can be read back; `where` is the file, for messages.

    Raises:
        StoreError: A value that JSON does not have, or that no reader would accept.
    """
    import orjson

    record = check_meta(orjson.loads(encode_meta(meta, "meta")), where, "Writing")
    return {**meta, KEY: {"rows": row_digest, "meta": digest_meta(record)}}


def find_changes(meta: Mapping[str, Any], row_digest: str) -> list[str]:
    """Return what the digests in `meta` show to have changed, one text each; files of older versions have none."""
    if KEY not in meta:
        return []
    recorded = meta[KEY]
    if not isinstance(recorded, dict):
        return [f"meta.{KEY} is no object: the record (meta) changed after the file was written"]
    problems = []
    if recorded.get("rows") != row_digest:
        problems.append("values, ids or labels changed after the file was written: their sha256 is not the one in meta")
    if recorded.get("meta") != digest_meta(meta):
        problems.append("the record (meta) changed after the file was written: its sha256 is not the one in it")
    return problems
