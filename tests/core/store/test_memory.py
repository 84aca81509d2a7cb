"""The sink of a run without ``out=``."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from fo_onnx.distributions import Distributions
from fo_onnx.store import MemorySink

N = 10_000
PROBS = np.full((N, 2), 0.5, np.float32)


@pytest.mark.parametrize("length", [None, N])
@pytest.mark.parametrize(("odd", "bytes_per_row"), [(None, 8), (N - 1, 16)])
def test_ids_take_no_memory_while_they_are_positions(length, odd, bytes_per_row):
    ids = np.arange(N)
    ids[odd : N if odd else 0] += 7
    sink = MemorySink(length, classes=2, id_kind="int", labels=False, logits=False)
    for start in range(0, N, 999):
        sink.append(ids[start : start + 999], PROBS[start : start + 999], None, None)
    result = sink.distributions()
    assert result.equals(Distributions(PROBS, ids=ids))
    assert bytes_per_row * N <= len(pickle.dumps(result)) < (bytes_per_row + 1) * N
