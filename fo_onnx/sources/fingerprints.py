"""A digest of data that is equal for equal data, and cheap: lengths, names, shapes, dtypes and a sample of rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from ..protocols import Array
from .assembly import Item, Unreadable
from .beside import Beside, spread


def fingerprint(length: int | None, rows: Iterable[Item], beside: Beside) -> str:
    """The digest of a source.

    Args:
        length: Number of rows, where it is known.
        rows: The sampled rows; one that cannot be read counts as such.
        beside: Ids and labels; ids that are mere positions do not count.

    Returns:
        32 hexadecimal digits (BLAKE2b), equal across processes and machines of one byte order.
    """
    digest = hashlib.blake2b(digest_size=16)

    def add(text: str) -> None:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)

    def add_array(array: Array) -> None:
        add(f"{array.dtype.str} {array.shape}")
        if array.dtype.kind == "O":
            for value in array.ravel().tolist():
                add(repr(value))
        else:
            digest.update(np.ascontiguousarray(array).tobytes())

    add(f"length {length}")
    for item in rows:
        if isinstance(item, Unreadable):
            add("unreadable")
            continue
        add("row")
        for name, array in item.inputs.items():
            add(name)
            add_array(array)
        if beside.labels is None and item.labels is not None:
            add("label")
            add_array(item.labels)
    if beside.labels is not None:
        add("labels")
        add_array(beside.labels.values)
        add(repr(beside.labels.class_names))
    if beside.ids.values is not None:
        add(f"ids {len(beside.ids.values)}")
        for position in spread(len(beside.ids.values), 1024):
            add(repr(beside.ids.one(position)))
    return digest.hexdigest()
