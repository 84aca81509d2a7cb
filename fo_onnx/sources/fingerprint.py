"""A digest of data that is equal for equal data, and cheap: lengths, names, shapes, dtypes and a sample of rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Array, Inputs
from ..control.run_control import current
from .annotations import RowAnnotations, sample_positions
from .batching import Item, Unreadable


def fingerprint(length: int | None, rows: Iterable[Item], annotations: RowAnnotations) -> str:
    """Return the digest of a source.

    Args:
        length: Number of rows, if it is known.
        rows: The sampled rows; one that cannot be read counts as such.
        annotations: Ids and labels; ids that are mere positions do not count.

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

    # Rows, then what is known of all of them.
    add(f"length {length}")
    for item in rows:
        current().check("while a row was being read")
        if isinstance(item, Unreadable):
            add("unreadable")
            continue
        add("row")
        for name, array in item.inputs.items():
            add(name)
            add_array(array)
        if annotations.labels is None and item.labels is not None:
            add("label")
            add_array(item.labels)
    if annotations.labels is not None:
        add("labels")
        add_array(annotations.labels.values)
        add(repr(annotations.labels.class_names))
    if annotations.ids.values is not None:
        add(f"ids {len(annotations.ids.values)}")
        for position in sample_positions(len(annotations.ids.values), 1024):
            add(repr(annotations.ids.id_at(position)))
    return digest.hexdigest()


def row_digests(inputs: Inputs) -> NDArray[np.uint64]:
    """Return a digest of each row of a batch: equal for equal rows, whichever batch they are in, and never 0.

    A row's bytes are taken as words of 64 bits and summed up with weights, modulo 2⁶⁴: as quick as memory, and two rows
    that differ by mistake have different digests but once in billions of times. It is no defence against rows that were
    made to look alike.
    # source: Dietzfelbinger, Universal Hashing and k-Wise Independent Random Variables via Integer Arithmetic without
    # Primes, STACS 1996.

    Args:
        inputs: Arrays (n, …) by name, of any dtype.

    Returns:
        (n,) uint64, the same in every process and on every machine of one byte order.
    """
    total: NDArray[np.uint64] | None = None
    for name, array in sorted(inputs.items()):
        what = f"{name} {array.dtype.str if array.dtype.kind not in 'OU' else 'text'} {array.shape[1:]}"
        digests = _column_digests(array)
        with np.errstate(over="ignore"):
            part = digests * np.uint64(_hash(f"{what} factor") | 1) + np.uint64(_hash(what))
            total = part if total is None else total + part
    if total is None:
        return np.empty(0, dtype=np.uint64)
    return np.maximum(total, np.uint64(1))


def _column_digests(array: Array) -> NDArray[np.uint64]:
    if array.dtype.kind in "OU":
        # Fixed-width text is as wide as the longest text of its batch, so that its bytes are not the row's own.
        rows = array.reshape(len(array), -1).tolist()
        return np.array([_hash(repr(row)) for row in rows], dtype=np.uint64)
    flat = np.ascontiguousarray(array).reshape(len(array), -1)
    if flat.shape[1] == 0:
        return np.zeros(len(array), dtype=np.uint64)
    octets = flat.view(np.uint8).reshape(len(array), -1)
    if padding := -octets.shape[1] % 8:
        octets = np.concatenate([octets, np.zeros((len(array), padding), np.uint8)], axis=1)
    words = octets.view(np.uint64)
    with np.errstate(over="ignore"):
        # Without the shift only the low bits of a word would reach the low bits of the sum.
        mixed = words ^ (words >> np.uint64(32))
        return mixed @ _weights(words.shape[1])


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


@lru_cache(maxsize=16)
def _weights(count: int) -> NDArray[np.uint64]:
    """Return odd weights, the same in every process."""
    return np.random.Generator(np.random.PCG64(0)).integers(0, 2**64, count, dtype=np.uint64) | np.uint64(1)
