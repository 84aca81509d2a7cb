"""Rows that the original runs again while a run in ONNX goes on."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from array_framework import Pair, pairs  # noqa: F401 a fixture
from onnx_files import WEIGHTS, expected, node, rows

import fo_onnx as fo
from fo_onnx.contracts.batch import Batch
from fo_onnx.contracts.runner import CallTime, RunOutput
from fo_onnx.engine import spot_checks
from fo_onnx.sources.annotations import sample_positions

pytestmark = pytest.mark.usefixtures("pairs")
ROWS = 1_000_000


def original(x):
    """Rows that begin with more than 100 have another meaning, of which the exported file knows nothing."""
    return np.where(x[:, :1] > 100, -x, x) @ WEIGHTS


def with_late_faults() -> np.ndarray:
    """Half of the rows from 5,000 on are faulty, and none of those that are compared before the run."""
    x = rows(ROWS)
    faulty = np.arange(5_000, ROWS, 2)
    x[np.setdiff1d(faulty, sample_positions(ROWS, 128, 128)), 0] = 101
    return x


def test_rows_that_agree_are_counted():
    dists = fo.generate(Pair(), rows(ROWS), runner="onnx", progress=False)
    checks = dists.meta["spot_checks"]
    assert checks["rows"] > 0
    assert checks["max_tv"] < 1e-6
    assert 0 < checks["seconds"] < dists.meta["timing"]["total_s"]


@pytest.mark.parametrize(("call_s", "checked"), [(0.001, 192), (0.01, 100), (1.0, 50)])
def test_a_check_that_takes_longer_than_expected_ends_when_its_time_is_up(monkeypatch, call_s, checked):
    """A second of a run leaves 19 ms. Rows wait as long as they would take less, at 50 in a call of 4 ms."""
    clock = SimpleNamespace(now=0.0)
    seen = set()

    def run(inputs):
        clock.now += call_s
        seen.update(inputs["x"][:, 0].tolist())
        return RunOutput(expected(inputs["x"]))

    monkeypatch.setattr(spot_checks, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    original = SimpleNamespace(run=run, one_thread=nullcontext)
    checks = spot_checks.SpotChecks(original, 1e-4, CallTime(rows=50, seconds=4e-3))
    clock.now = 1.0
    x = rows(64)
    for number in range(10):
        x[:, 0] = number
        checks.look_at(Batch(np.arange(64), {"x": x}, None, 0), RunOutput(expected(x)))
    assert checks.rows == 0
    checks.finish()
    assert checks.rows == checked
    assert checks.seconds == pytest.approx(call_s * -(-checked // 50))
    # They are of any of the six batches that wait, not of the first ones.
    assert len(seen) == -(-checked // 32)
    assert len(seen) == 6 or seen != set(range(len(seen)))


def test_the_original_runs_in_sizes_that_it_has_run_before():
    """JAX compiles each size of batch anew, which takes up to a second for a small network."""
    sizes = []

    def run(x):
        sizes.append(len(x))
        return x @ WEIGHTS

    dists = fo.generate(Pair(run), rows(ROWS), runner="onnx", progress=False)
    assert dists.meta["spot_checks"]["rows"] > 0
    # 128 of the rows that are compared are the first ones, and 128 are spread over the data.
    assert set(sizes) == {1, 128}


def test_a_fault_that_comes_late_ends_the_run():
    x = with_late_faults()
    with pytest.raises(
        fo.ParityError, match=r"row \d+ \(id \d+\): the exported model differs .* begin again with runner='native'"
    ) as caught:
        fo.generate(Pair(original), x, runner="onnx", progress=False)
    assert caught.value.finished is not None
    row = int(str(caught.value).partition("row ")[2].partition(" ")[0])
    assert x[row, 0] == 101
    # The way out is open.
    dists = fo.generate(Pair(original), x, runner="native", progress=False)
    assert len(dists) == ROWS
    assert dists.meta["spot_checks"] is None


def test_a_run_that_a_fault_ended_is_not_resumed(tmp_path):
    x, out = with_late_faults(), tmp_path / "d.parquet"
    with pytest.raises(fo.ParityError, match=r"finished rows, of the same export, are kept in .*d\.parquet\.partial"):
        fo.generate(Pair(original), x, out=out, runner="onnx", progress=False)
    with pytest.raises(fo.ResumeError, match=r"the run was ended.*overwrite=True"):
        fo.generate(Pair(original), x, out=out, runner="onnx", resume=True, progress=False)
    dists = fo.generate(Pair(original), x, out=out, overwrite=True, runner="native", progress=False)
    assert len(dists) == ROWS


def test_a_row_that_only_the_original_refuses_ends_the_run():
    def refusing(x):
        if (x[:, 0] > 100).any():
            raise ValueError("more than 100")
        return x @ WEIGHTS

    with pytest.raises(fo.ParityError, match=r"the exported model differs"):
        fo.generate(Pair(refusing), with_late_faults(), runner="onnx", progress=False)


def test_a_run_goes_on_when_the_original_fails():
    """It answers the comparison before the run, and nothing after it."""
    calls = []

    def failing(x):
        calls.append(len(x))
        if len(calls) > calls_before_run:
            raise ValueError("out of memory")
        return x @ WEIGHTS

    calls_before_run = 10**9
    fo.generate(Pair(failing), rows(100), runner="onnx", progress=False)
    calls_before_run, calls = len(calls), []
    x = rows(ROWS)
    with pytest.warns(fo.FallbackWarning, match="no more rows of this run are spot-checked: .*out of memory"):
        dists = fo.generate(Pair(failing), x, runner="onnx", progress=False)
    assert dists.meta["runner"]["kind"] == "onnx"
    assert dists.meta["spot_checks"]["rows"] == 0
    assert "out of memory" in dists.meta["spot_checks"]["failure"]
    np.testing.assert_allclose(dists.probs, expected(x), atol=1e-6)


def test_half_of_the_compared_rows_are_spread_over_the_data():
    """The first 256 rows agree; the comparison sees the others before the run."""
    x = rows(ROWS)
    x[300:, 0] = 101
    with pytest.warns(fo.FallbackWarning, match="rows differ by a total variation"):
        dists = fo.generate(Pair(original), x, progress=False)
    assert dists.meta["runner"]["kind"] == "native"
    assert dists.meta["parity"]["rows"] == 256


def test_a_row_that_the_original_answers_in_place_of_the_file_is_no_difference():
    """The file gives NaN for late rows that have a distribution in the original."""
    nodes = (
        node("Slice", ["x", "zero", "one", "one"], ["column"]),
        node("Greater", ["column", "limit"], ["is_large"]),
        node("Where", ["is_large", "nan", "z"], ["out"]),
    )
    values = {"zero": np.array([0]), "one": np.array([1]), "limit": np.float32(100), "nan": np.float32(np.nan)}
    x = with_late_faults()
    dists = fo.generate(Pair(nodes=nodes, output="out", initializers=values), x, runner="onnx", progress=False)
    assert dists.meta["runner"]["kind"] == "onnx"
    assert dists.meta["spot_checks"]["rows"] > 0
    np.testing.assert_allclose(dists.probs[5_000:5_100], expected(x[5_000:5_100]), atol=1e-6)
