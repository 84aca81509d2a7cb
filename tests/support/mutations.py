"""Changes to the bytes of a file, as damage or malice makes them."""

from __future__ import annotations

import numpy as np


def flip(data: bytearray, rng: np.random.Generator) -> bytes:
    for position in rng.integers(len(data), size=rng.integers(1, 4)):
        data[position] ^= 1 << int(rng.integers(8))
    return bytes(data)


def write_over(data: bytearray, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(data)))
    stop = min(len(data), start + int(rng.integers(1, 17)))
    data[start:stop] = bytes(stop - start) if rng.random() < 0.3 else rng.bytes(stop - start)
    return bytes(data)


def cut(data: bytearray, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(data)))
    # The end, or a piece.
    stop = len(data) if rng.random() < 0.5 else start + int(rng.integers(1, 60))
    return bytes(data[:start] + data[stop:])


def insert(data: bytearray, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(data) + 1))
    return bytes(data[:start] + rng.bytes(int(rng.integers(1, 40))) + data[start:])


def double(data: bytearray, rng: np.random.Generator) -> bytes:
    start, at = (int(n) for n in rng.integers(len(data), size=2))
    piece = data[start : start + int(rng.integers(1, 300))]
    return bytes(data[:at] + piece + data[at:])


def swap(data: bytearray, rng: np.random.Generator) -> bytes:
    size = int(rng.integers(1, 40))
    a, b = sorted(int(n) for n in rng.integers(max(1, len(data) - 2 * size), size=2))
    b = max(b, a + size)
    return bytes(data[:a] + data[b : b + size] + data[a + size : b] + data[a : a + size] + data[b + size :])


def change_a_digit(data: bytearray, rng: np.random.Generator) -> bytes:
    places = [i for i, byte in enumerate(data) if 48 <= byte < 58]
    data[places[int(rng.integers(len(places)))]] = 48 + int(rng.integers(10))
    return bytes(data)


def swap_lines(data: bytearray, rng: np.random.Generator) -> bytes:
    lines = bytes(data).splitlines(keepends=True)
    a, b = (int(n) for n in rng.integers(len(lines), size=2))
    lines[a], lines[b] = lines[b], lines[a]
    return b"".join(lines[: len(lines) - int(rng.integers(2))])


MUTATIONS = (flip, flip, write_over, cut, insert, double, swap, change_a_digit, swap_lines)
