"""Rows for the nets: images, tokens and sequences from a seed, and scikit-learn's digits for those that are trained."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSES = 10
VOCABULARY, TOKENS = 30_522, 128
STEPS, FEATURES = 50, 64


@functools.cache
def digits(side: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return scikit-learn's digits, 1,797 images in grey enlarged to `side` times `side`, in [0, 1], and their labels."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    place = np.arange(side) * 8 // side
    large = (images.reshape(-1, 8, 8) / 16).astype(np.float32)[:, place][:, :, place]
    return large, labels.astype(np.int64)


def flat_digits(rows: int) -> NDArray[np.float32]:
    """Return digits with a little noise as vectors (rows, 784)."""
    return _noisy(digits(28)[0].reshape(-1, 784), rows)


def colour_digits(rows: int, side: int = 32) -> NDArray[np.float32]:
    """Return digits with a little noise in three channels (rows, 3, side, side)."""
    return _noisy(in_colour(digits(side)[0]), rows)


def in_colour(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return grey images (n, side, side) with three equal channels (n, 3, side, side)."""
    return np.repeat(samples[:, None], 3, axis=1)


def images(rows: int, side: int) -> NDArray[np.float32]:
    """Return images of four times four coloured fields, with some noise (rows, 3, side, side).

    Images of noise alone are all the same to a net that averages over places: its rows would differ by little more than rounding.
    """
    rng, field = np.random.default_rng(0), side // 4
    fields = rng.standard_normal((rows, 3, 4, 4), dtype=np.float32)
    noise = rng.standard_normal((rows, 3, side, side), dtype=np.float32)
    return fields.repeat(field, axis=2).repeat(field, axis=3) + noise / 4


def tokens(rows: int) -> NDArray[np.int64]:
    """Return token numbers (rows, 128)."""
    return np.random.default_rng(0).integers(0, VOCABULARY, (rows, TOKENS))


def sequences(rows: int) -> NDArray[np.float32]:
    """Return sequences (rows, 50, 64)."""
    return np.random.default_rng(0).standard_normal((rows, STEPS, FEATURES), dtype=np.float32)


def channels_last(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return images with their channels as the last axis."""
    return np.ascontiguousarray(np.moveaxis(rows, 1, -1))


def _noisy(samples: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    chosen = samples[rng.integers(0, len(samples), rows)]
    chosen += rng.normal(0, 0.05, chosen.shape).astype(np.float32)
    return chosen


def spread_of(logits: Any) -> tuple[NDArray[np.float32], float]:
    """Return what is taken from a random net's logits, by class, and the factor after it, so that rows differ and no class wins all."""
    logits = np.asarray(logits)
    mean = logits.mean(axis=0)
    return mean, float(1 / np.std(logits - mean))
