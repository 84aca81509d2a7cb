"""Rows with NaN in their input: what the model itself makes of them holds, whichever way the others are run."""

from __future__ import annotations

import numpy as np
import pytest

import fo_onnx as fo

torch = pytest.importorskip("torch")

ROWS = 600
NAN_ROWS = [3, 300, 599]


def images() -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(ROWS, 1, 8, 8)).astype(np.float32)
    x[NAN_ROWS, 0, 2, 2] = np.nan
    return x


def pooling_net() -> torch.nn.Module:
    """ONNX Runtime's max-pool passes over NaN, and torch's hands it on."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.MaxPool2d(4), torch.nn.Flatten(), torch.nn.Linear(4, 3))


class FillsGaps(torch.nn.Module):
    """Takes NaN for a missing value."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pool, self.head = torch.nn.MaxPool2d(4), torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(torch.nan_to_num(x, nan=5.0)).flatten(1))


def test_exported_alone_it_would_be_given_a_distribution(tmp_path) -> None:
    x = images()
    model = fo.export(pooling_net(), x[10:100], tmp_path / "pool.onnx")
    assert np.isfinite(fo.generate(model, x)[300]).all()


@pytest.mark.parametrize("keep_logits", [False, True])
def test_a_row_that_has_no_distribution_gets_none(tmp_path, keep_logits: bool) -> None:
    out = tmp_path / "rows.parquet"
    dists = fo.generate(pooling_net(), images(), out=out, on_error="record", keep_logits=keep_logits)
    assert dists.meta["runner"]["kind"] == "onnx"
    assert dists.meta["rows"]["quarantined"] == 3
    assert not any(i in dists for i in NAN_ROWS)
    reasons = (tmp_path / "rows.parquet.errors.jsonl").read_text()
    assert reasons.count("there is NaN in its input '0'") == 3


def test_the_first_of_them_ends_a_run_with_its_id() -> None:
    with pytest.raises(fo.DataError, match=r"row 3 \(id 3\): its output is no distribution, and there is NaN"):
        fo.generate(pooling_net(), images())


def test_a_model_that_takes_nan_for_missing_gives_its_own_answer() -> None:
    net, x = FillsGaps(), images()
    dists = fo.generate(net, x, keep_logits=True)
    assert dists.meta["runner"]["kind"] == "onnx"
    with torch.no_grad():
        wanted = torch.softmax(net(torch.from_numpy(x)), 1).numpy()
    assert np.abs(dists.probs - wanted).max() < 1e-6
    assert np.abs(dists.logits[NAN_ROWS] - net(torch.from_numpy(x[NAN_ROWS])).detach().numpy()).max() < 1e-5


def test_infinity_stays_with_onnx_where_it_may_be_a_mask() -> None:
    x = images()
    x[NAN_ROWS, 0, 2, 2] = -np.inf
    dists = fo.generate(pooling_net(), x)
    assert dists.meta["runner"]["kind"] == "onnx"
    assert len(dists) == ROWS


def test_an_export_is_not_compared_on_rows_without_distribution(tmp_path) -> None:
    model = fo.export(pooling_net(), images(), tmp_path / "pool.onnx")
    assert model.provenance["parity"]["passed"]
