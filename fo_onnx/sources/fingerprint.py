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
    """Return the digest of a source of `length` rows, of which `rows` were sampled; those that cannot be read count as such.

    Returns:
        32 hexadecimal digits (BLAKE2b), equal across processes and machines of one byte order.
    """
    digest = hashlib.blake2b(f"length {length}".encode(), digest_size=16)
    # Rows, then what is known of all of them.
    for item in rows:
        current().check("while a row was being read")
        if isinstance(item, Unreadable):
            digest.update(bytes(8))  # which no digest of a row is
            continue
        if not len(item):  # arrays without rows still have dtypes and shapes
            digest.update(repr([(name, a.dtype.str, a.shape) for name, a in item.inputs.items()]).encode())
        carried = {} if annotations.labels is not None or item.labels is None else {"its label": item.labels}
        digest.update(row_digests({**item.inputs, **carried}).tobytes())
    if annotations.labels is not None:
        digest.update(repr(annotations.labels.class_names).encode("utf-8", "surrogatepass"))
        digest.update(np.ascontiguousarray(annotations.labels.values).data)
    if annotations.ids is not None:
        positions = sample_positions(len(annotations.ids), 1024)
        digest.update(row_digests({"ids": annotations.ids[positions]}).tobytes())
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
    if array.size == 0:
        return np.zeros(len(array), dtype=np.uint64)
    if array.dtype.kind in "OU":
        # Fixed-width text is as wide as the longest text of its batch, so that its bytes are not the row's own.
        rows = array.reshape(len(array), -1).tolist()
        return np.array([_hash(repr(row)) for row in rows], dtype=np.uint64)
    octets = np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)
    width = octets.shape[1]
    if width in (1, 2, 4):  # quicker than padding
        octets = octets.view(f"u{width}").astype(np.uint64)
    elif padding := -width % 8:
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
