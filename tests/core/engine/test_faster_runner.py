"""The faster of the exported model and the original is taken, by what was measured on the first rows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from array_framework import Pair, pairs
from onnx_files import WEIGHTS

import fo_onnx as fo
from fo_onnx.contracts.batch_plan import BatchPlan, MeasuredRate
from fo_onnx.engine import choose_by_speed, faster_runner
from fo_onnx.engine.faster_runner import RunnerSpeed, describe_speed, find_clear_lead
from fo_onnx.runtime.compare_speed import SpeedComparison

__all__ = ["pairs"]
X = np.random.default_rng(0).normal(size=(600, 6)).astype(np.float32)
FASTER_NATIVE = RunnerSpeed(2000.0, 1000.0, 0.5, 2, True, 64)
FASTER_ONNX = RunnerSpeed(1000.0, 2000.0, 2.0, 2, False, 256)


@pytest.mark.parametrize(
    ("rates", "is_native_faster"),
    [
        ([(1500, 1000), (1400, 1000)], False),
        ([(1000, 1500), (1000, 1400)], True),
        # Within the noise, ONNX stays.
        ([(1000, 1020), (1000, 1020), (1000, 1025)], False),
        ([(1000, 1040), (1000, 1050), (1000, 1060)], True),
        # Not in every turn.
        ([(1000, 1500), (1000, 1500), (1000, 900)], False),
        ([(1000, 1100)], True),
    ],
)
def test_onnx_is_left_if_the_original_is_faster_beyond_the_noise(
    rates: list[tuple[float, float]], is_native_faster: bool
) -> None:
    assert describe_speed(SpeedComparison(tuple(rates)), 64).is_native_faster is is_native_faster


def test_a_comparison_in_words() -> None:
    speed = describe_speed(SpeedComparison(((1000.0, 2000.0), (2200.0, 4000.0), (1500.0, 3000.0))), 64)
    assert speed == RunnerSpeed(3000.0, 1500.0, 0.5, 3, True, 64)
    assert speed.reason == (
        "it is faster: on the first rows of the data it ran 3e+03 rows/s and the exported model 1.5e+03, 0.50 times as many"
    )


def test_a_clear_lead_of_onnx_needs_no_turns() -> None:
    native = BatchPlan(64, 1, 2, False, "by rule")
    slow, fast = MeasuredRate(1, 2, 1, False, 9000.0), MeasuredRate(16, 2, 1, False, 1500.0)
    plan = BatchPlan(16, 2, 1, False, "measured", (slow, fast))
    assert find_clear_lead(plan, native, 0.001) == RunnerSpeed(1000.0, 1500.0, 1.5, 0, False, 64)
    assert find_clear_lead(plan, native, 0.0009) is None
    assert find_clear_lead(BatchPlan(16, 2, 1, False, "by rule"), native, 0.1) is None


@pytest.fixture
def slow_model() -> Pair:
    """A model whose original takes 20 ms for a batch."""

    def original(x: np.ndarray) -> np.ndarray:
        time.sleep(0.02)
        return x @ WEIGHTS

    return Pair(original)


@pytest.fixture
def slow_graph() -> Pair:
    """A model whose graph multiplies large matrices of which nothing comes, so that it is very much slower than the original."""
    rng = np.random.default_rng(0)
    wide, square, narrow = (rng.normal(size=shape).astype(np.float32) for shape in ((4, 600), (600, 600), (600, 4)))
    nodes = [onnx.helper.make_node("MatMul", ["z", "wide"], ["h0"])]
    nodes += [onnx.helper.make_node("MatMul", [f"h{i}", "square"], [f"h{i + 1}"]) for i in range(8)]
    nodes += [
        onnx.helper.make_node("MatMul", ["h8", "narrow"], ["last"]),
        onnx.helper.make_node("Mul", ["last", "zero"], ["nothing"]),
        onnx.helper.make_node("Add", ["z", "nothing"], ["sum"]),
    ]
    # Small enough that nothing overflows.
    weights = {"wide": wide, "square": square / 25, "narrow": narrow, "zero": np.zeros(1, np.float32)}
    return Pair(nodes=tuple(nodes), output="sum", initializers=weights)


@pytest.mark.usefixtures("pairs")
def test_a_slow_original_is_timed_and_left(monkeypatch: pytest.MonkeyPatch, slow_model: Pair) -> None:
    monkeypatch.setattr(choose_by_speed, "LEAST_RUN_S", 0.0)
    dists = fo.generate(slow_model, X)
    assert dists.meta["runner"]["kind"] == "onnx"
    assert dists.meta["runner"]["reason"] is None
    assert dists.meta["runner"]["speed"]["ratio"] > 1


@pytest.mark.usefixtures("pairs")
def test_a_slow_graph_is_timed_and_left(monkeypatch: pytest.MonkeyPatch, slow_graph: Pair) -> None:
    monkeypatch.setattr(choose_by_speed, "LEAST_RUN_S", 0.0)
    dists = fo.generate(slow_graph, X)
    runner = dists.meta["runner"]
    assert runner["kind"] == "native"
    assert runner["reason"].startswith("it is faster: on the first rows of the data it ran")
    assert 0 < runner["speed"]["ratio"] < 1
    assert dists.meta["parity"]["passed"]
    assert dists.meta["engine"]["export"] == "new"
    assert dists.meta["engine"]["provider"] is None
    assert dists.probs.tobytes() == fo.generate(slow_graph, X, runner="native").probs.tobytes()


@pytest.mark.usefixtures("pairs")
def test_the_original_runs_in_the_batches_in_which_it_is_fastest(
    monkeypatch: pytest.MonkeyPatch, slow_graph: Pair
) -> None:
    """A call of the original takes as long for any number of rows."""

    def original(x: np.ndarray) -> np.ndarray:
        time.sleep(0.001)
        return x @ WEIGHTS

    monkeypatch.setattr(choose_by_speed, "LEAST_RUN_S", 0.0)
    model = Pair(original, nodes=slow_graph.nodes, output="sum", initializers=slow_graph.initializers)
    for _ in range(2):  # measured, and known from before
        dists = fo.generate(model, X)
        assert dists.meta["runner"]["kind"] == "native"
        assert dists.meta["engine"]["batch_size"] == 1024
        assert dists.meta["engine"]["tuning"]["chosen"] == "measured"
        np.testing.assert_allclose(dists.probs, fo.generate(model, X, runner="native").probs, atol=1e-6)
    # A size that was given stays.
    assert fo.generate(model, X, batch_size=100).meta["engine"]["batch_size"] == 100


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the comparison comes to, and how often it is made."""
    measured: dict[str, Any] = {"speed": FASTER_NATIVE, "times": 0}

    def measure(*args: Any) -> RunnerSpeed | None:
        measured["times"] += 1
        speed: RunnerSpeed | None = measured["speed"]
        return speed

    monkeypatch.setattr(choose_by_speed, "measure_speed", measure)
    monkeypatch.setattr(choose_by_speed, "LEAST_RUN_S", 0.0)
    return measured


@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize(("speed", "kind"), [(FASTER_NATIVE, "native"), (FASTER_ONNX, "onnx")])
def test_the_same_job_is_run_by_the_same_runner_again(measured: dict[str, Any], speed: RunnerSpeed, kind: str) -> None:
    measured["speed"] = speed
    runs = [fo.generate(Pair(), X) for _ in range(3)]
    assert [run.meta["runner"]["kind"] for run in runs] == [kind] * 3
    assert all(run.meta["runner"]["speed"] == speed.record for run in runs)
    assert len({run.probs.tobytes() for run in runs}) == 1
    assert measured["times"] == 1
    # Another batch size is another measurement; a runner that was asked for is none.
    fo.generate(Pair(), X, batch_size=50)
    assert measured["times"] == 2
    assert fo.generate(Pair(), X, runner="onnx").meta["runner"]["kind"] == "onnx"
    assert measured["times"] == 2


@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize(
    ("batch_size", "most_warming_s", "times"),
    [("auto", 0.0, 1), ("auto", 60.0, 0), (50, 0.0, 0)],
    ids=["one long call", "one call, made again", "several calls"],
)
def test_a_cold_call_of_the_original_gives_nobody_a_lead(
    measured: dict[str, Any], monkeypatch: pytest.MonkeyPatch, batch_size: Any, most_warming_s: float, times: int
) -> None:
    monkeypatch.setattr("fo_onnx.conversion.reference.MOST_WARMING_S", most_warming_s)
    monkeypatch.setattr(choose_by_speed, "find_clear_lead", lambda *args: FASTER_ONNX)
    dists = fo.generate(Pair(), X, batch_size=batch_size)
    assert measured["times"] == times
    assert dists.meta["runner"]["kind"] == ("native" if times else "onnx")


@pytest.mark.usefixtures("pairs")
def test_a_runner_that_fails_while_it_is_timed_stays_with_onnx(measured: dict[str, Any]) -> None:
    measured["speed"] = None
    dists = fo.generate(Pair(), X)
    assert dists.meta["runner"]["kind"] == "onnx"
    assert dists.meta["runner"]["speed"] is None


@pytest.mark.usefixtures("pairs", "measured")
def test_a_graph_that_says_what_the_output_means_says_it_natively_too() -> None:
    logits = np.random.default_rng(0).uniform(0.1, 0.9, size=(600, 4))
    rows = (logits @ np.linalg.pinv(WEIGHTS)).astype(np.float32)
    for _ in range(2):  # measured, and known from before
        dists = fo.generate(Pair(), rows)
        assert dists.meta["runner"]["kind"] == "native"
        assert dists.meta["model"]["output"] == "logits"


@pytest.mark.usefixtures("pairs")
def test_neither_data_of_unknown_length_nor_short_runs_are_timed(
    measured: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fo.generate(Pair(), iter([(row, 0) for row in X])).meta["runner"]["kind"] == "onnx"
    monkeypatch.setattr(choose_by_speed, "LEAST_RUN_S", faster_runner.LEAST_RUN_S)
    assert fo.generate(Pair(), X).meta["runner"]["kind"] == "onnx"
    assert measured["times"] == 0


@pytest.mark.usefixtures("pairs", "measured")
def test_a_run_that_began_natively_is_resumed_natively(tmp_path: Path) -> None:
    rows = X.copy()
    rows[500] = np.nan
    with pytest.raises(fo.errors.DataError):
        fo.generate(Pair(), rows, out=tmp_path / "rows.npy")
    resumed = fo.generate(Pair(), X, out=tmp_path / "rows.npy", resume=True)
    assert resumed.meta["runner"]["kind"] == "native"
    assert resumed.meta["runner"]["reason"] == FASTER_NATIVE.reason
