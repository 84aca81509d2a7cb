"""Values that ordinary rows do not have, and at which ONNX means something else: guarded, or found by synthetic rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fo_onnx as fo
from fo_onnx.conversion.hazards import HAZARDS
from fo_onnx.sources.annotations import sample_positions

IDS = np.random.default_rng(0).integers(0, 20, (400, 5))


class Codes(torch.nn.Module):
    """Refuses ids outside of 0 to 19."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.out = torch.nn.Embedding(20, 8), torch.nn.Linear(8, 4)

    def forward(self, ids):
        return self.out(self.embedding(ids).mean(1)) * 6


class Indexed(Codes):
    """Takes ids from -20 on, which count from the end."""

    def forward(self, ids):
        return self.out(self.embedding.weight[ids].mean(1)) * 6


class OneHot(Codes):
    """Refuses ids outside of 0 to 19, without a table."""

    def forward(self, ids):
        return self.out(torch.nn.functional.one_hot(ids, 20).float().mean(1)[:, :8]) * 6


class Experts(torch.nn.Module):
    """Chooses two of eight experts, among which zeros tie."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.gate, self.out = torch.nn.Linear(8, 8, bias=False), torch.nn.Linear(8, 4)
        self.experts = torch.nn.Parameter(torch.randn(8, 8))

    def forward(self, x):
        return self.out(x + self.experts[torch.topk(self.gate(x), 2).indices].sum(1)) * 4


def with_index(index: int) -> np.ndarray:
    ids = IDS.copy()
    ids[300, 2] = index
    return ids


def native(net, x) -> np.ndarray:
    with torch.no_grad():
        return torch.softmax(net(torch.from_numpy(x)), 1).numpy()


@pytest.mark.parametrize("index", [-1, 20, -(2**40), 2**40])
def test_an_index_that_the_original_refuses_is_its_rows_fault(index):
    with pytest.raises(fo.DataError, match=r"row 300 \(id 300\): .*index out of range"):
        fo.generate(Codes(), with_index(index))
    dists = fo.generate(Codes(), with_index(index), on_error="skip")
    assert dists.meta["runner"]["kind"] == "onnx"
    assert dists.ids.tolist() == np.delete(np.arange(400), 300).tolist()
    np.testing.assert_allclose(dists.probs, native(Codes(), np.delete(IDS, 300, 0)), atol=1e-6)


@pytest.mark.parametrize("index", [-1, 20])
def test_a_file_on_its_own_gives_no_distribution_for_it(tmp_path, index):
    exported = fo.export(Codes(), IDS, tmp_path / "m.onnx")
    with pytest.raises(fo.DataError, match="row 300"):
        fo.generate(exported, with_index(index))
    dists = fo.generate(exported, with_index(index), on_error="skip", temperature=2)
    assert dists.ids.tolist() == np.delete(np.arange(400), 300).tolist()


@pytest.mark.parametrize("index", [-1, -20])
def test_a_negative_index_that_the_original_takes_is_taken(index):
    ids = with_index(index)
    dists = fo.generate(Indexed(), ids)
    assert dists.meta["runner"]["kind"] == "onnx"
    np.testing.assert_allclose(dists.probs, native(Indexed(), ids), atol=1e-6)


@pytest.mark.parametrize("index", [-21, 20])
def test_indices_past_both_ends(index):
    dists = fo.generate(Indexed(), with_index(index), on_error="skip")
    assert dists.meta["runner"]["kind"] == "onnx"
    assert 300 not in dists
    assert len(dists) == 399


def test_what_a_guard_does_not_reach_runs_natively():
    with pytest.warns(fo.FallbackWarning, match="gives a distribution where the original gives none: an index outside"):
        dists = fo.generate(OneHot(), with_index(20), on_error="skip")
    assert dists.meta["runner"]["kind"] == "native"
    assert 300 not in dists
    with pytest.raises(fo.ParityError, match="on a synthetic row, -1 in '0'"):
        fo.export(OneHot(), IDS)


def test_ties():
    x = np.random.default_rng(0).standard_normal((4000, 8), dtype=np.float32)
    x[np.setdiff1d(np.arange(300, 310), sample_positions(4000, 128, 128))] = 0
    with pytest.warns(fo.FallbackWarning, match="on a synthetic row, zeros, .* of equal values ONNX takes the first"):
        dists = fo.generate(Experts(), x)
    np.testing.assert_allclose(dists.probs, native(Experts(), x), atol=1e-6)
    # A tolerance that allows anything allows this too.
    assert fo.generate(Experts(), x, runner="onnx", tolerance=1.0).meta["runner"]["kind"] == "onnx"


def test_an_assert_that_tracing_drops():
    class Positive(Experts):
        def forward(self, x):
            torch._assert_async((x > -6).all(), "values above -6")
            return self.out(x) * 4

    x = np.random.default_rng(0).standard_normal((4000, 8), dtype=np.float32)
    x[300] = -7
    with pytest.warns(fo.FallbackWarning, match="gives none: a check in its code, as an assert, is not in the graph"):
        dists = fo.generate(Positive(), x, on_error="skip")
    assert 300 not in dists
    assert len(dists) == 3999


@pytest.mark.parametrize("hazard", HAZARDS, ids=lambda hazard: hazard.operators[0])
def test_each_hazard_has_a_reason_and_a_source(hazard):
    assert hazard.reason
    assert hazard.source.startswith("https://")
