"""Data and a linear classifier in numpy, which the tests of each framework take over."""

from __future__ import annotations

import numpy as np

ROWS, K = 77, 3
_rng = np.random.default_rng(0)
x = _rng.normal(size=(ROWS, 4)).astype(np.float32)
labels = _rng.integers(0, K, ROWS)
W = _rng.normal(size=(4, K)).astype(np.float32) * 2
b = _rng.normal(size=K).astype(np.float32)
logits = x.astype(np.float64) @ W + b
truth = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
"""The distributions of the classifier, (ROWS, K) float64."""
