"""Callables that work in place: on arrays of their own, never on what the caller holds or what is looked at again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fo_onnx as fo

X = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)


def in_place(x: np.ndarray) -> np.ndarray:
    x *= 2
    x += 1
    return x @ W


@pytest.mark.parametrize(
    "data",
    [
        lambda x: x,
        lambda x: (x, np.zeros(len(x), int)),
        list,
        lambda x: iter([x[:64], x[64:128], x[128:]]),
        lambda x: (row for row in x),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 64, 1000])
def test_rows_are_right_and_the_data_untouched(data: Any, batch_size: int) -> None:
    x = X.copy()
    logits = (X * 2 + 1).astype(np.float64) @ W
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = fo.generate(in_place, data(x), batch_size=batch_size)
    assert np.abs(found.probs - wanted).max() < 1e-6
    assert np.array_equal(x, X)
