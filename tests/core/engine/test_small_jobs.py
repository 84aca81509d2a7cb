"""Small jobs stay native: their rows take less than an export would."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_framework import Pair, pairs
from onnx_files import WEIGHTS

import fo_onnx as fo
from fo_onnx.contracts.options import ModelOptions, OutputOptions, RunOptions
from fo_onnx.conversion.reference import Reference, open_reference
from fo_onnx.engine import Engine, small_jobs
from fo_onnx.engine.small_jobs import MOST_EXPORTS, expected_export_s, find_small_job, keep_export_s
from fo_onnx.models import plugins
from fo_onnx.runtime.request import RunRequest
from fo_onnx.store import user_cache

__all__ = ["pairs"]
pytestmark = [pytest.mark.usefixtures("pairs"), pytest.mark.exports_cost_time]
X = np.random.default_rng(0).normal(size=(600, 6)).astype(np.float32)


@pytest.fixture
def slow_exports() -> None:
    """An export took so long here that every job of these tests is a small one."""
    keep_export_s("pair", 1e6)


@pytest.fixture
def quick_exports() -> None:
    """An export takes no time that counts."""
    keep_export_s("pair", 0.0)


def reference_with(*calls: tuple[int, float]) -> Reference:
    """Return a model with calls that took so long."""
    request = RunRequest(
        Pair(), plugins.exporter("pair"), {"x": X[:256]}, len(X), ModelOptions(), OutputOptions(), RunOptions()
    )
    return replace(open_reference(request), calls=calls)


def run_in_words(dists: fo.Distributions) -> tuple[str, str | None]:
    runner = dists.meta["runner"]
    return runner["kind"], runner["reason"]


@pytest.mark.usefixtures("slow_exports")
def test_a_small_job_stays_native_and_its_rows_are_those_of_the_native_runner() -> None:
    small = fo.generate(Pair(), X)
    native = fo.generate(Pair(), X, runner="native")
    assert run_in_words(small) == (
        "native", "a small job: 600 rows take less than 0.1 s natively, an export of pair about 1000000 s"
    )  # fmt: skip
    assert small.probs.tobytes() == native.probs.tobytes()
    assert small.meta["engine"]["batch_size"] == native.meta["engine"]["batch_size"]
    speed = small.meta["runner"]["speed"]
    assert speed["export_s"] == 1e6
    assert speed["native_rows_per_s"] > 0
    assert speed["onnx_rows_per_s"] is speed["ratio"] is None
    assert native.meta["runner"]["speed"] is None
    assert small.meta["parity"]["passed"] is None
    assert "the original itself" in small.meta["parity"]["unknown"]


@pytest.mark.usefixtures("slow_exports")
def test_it_is_logged_and_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings(), caplog.at_level(logging.INFO, "fo_onnx.engine"):
        warnings.simplefilter("error")
        fo.generate(Pair(), X)
    assert [r.levelname for r in caplog.records if "Pair runs natively: a small job" in r.getMessage()] == ["INFO"]


@pytest.mark.usefixtures("slow_exports")
def test_a_small_job_of_a_model_that_mixes_rows_warns_of_that() -> None:
    mixing = Pair(original=lambda x: x @ WEIGHTS + x.mean(axis=0) @ WEIGHTS)
    with pytest.warns(fo.errors.FallbackWarning, match=r"a small job: .*; the model mixes the rows of a batch"):
        assert run_in_words(fo.generate(mixing, X))[0] == "native"


@pytest.mark.usefixtures("quick_exports")
def test_a_large_job_is_exported_and_what_that_cost_is_kept() -> None:
    dists = fo.generate(Pair(), X)
    assert run_in_words(dists) == ("onnx", None)
    assert dists.meta["engine"]["export"] == "new"
    assert dists.meta["runner"]["speed"] is None
    # The median of nothing and what it took.
    assert 0 < expected_export_s("pair") < 100


@pytest.mark.usefixtures("slow_exports")
def test_with_runner_onnx_every_job_is_exported() -> None:
    assert run_in_words(fo.generate(Pair(), X, runner="onnx")) == ("onnx", None)


@pytest.mark.usefixtures("slow_exports")
def test_a_cached_export_costs_nothing() -> None:
    fo.generate(Pair(), X, runner="onnx")
    dists = fo.generate(Pair(), X)
    assert run_in_words(dists) == ("onnx", None)
    assert dists.meta["engine"]["export"] == "cached"


@pytest.mark.usefixtures("slow_exports")
def test_data_of_unknown_length_are_exported() -> None:
    assert run_in_words(fo.generate(Pair(), iter([(row, 0) for row in X])))[0] == "onnx"


@pytest.mark.usefixtures("slow_exports")
def test_predict_exports() -> None:
    with Engine(Pair()) as engine:
        assert run_in_words(engine.generate(X))[0] == "native"
        engine.predict(X[:3])
        assert run_in_words(engine.generate(X))[0] == "onnx"


@pytest.mark.usefixtures("slow_exports")
def test_only_a_graph_may_say_that_small_numbers_are_logits() -> None:
    # Natively numbers within [0, 1] are ambiguous, and the export ends in a MatMul.
    logits = np.random.default_rng(0).uniform(0.1, 0.9, size=(600, 4))
    dists = fo.generate(Pair(), (logits @ np.linalg.pinv(WEIGHTS)).astype(np.float32))
    assert dists.meta["model"]["output"] == "logits"
    assert run_in_words(dists)[0] == "onnx"


def test_an_engine_exports_once_its_calls_have_more_rows_than_a_small_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reference, "row_s", 0.001)
    keep_export_s("pair", 0.3336)
    with Engine(Pair()) as engine:
        # Up to 1,000 rows are a small job, over all calls.
        kinds = [run_in_words(engine.generate(X[:rows]))[0] for rows in (400, 600, 1, 300)]
        assert kinds == ["native", "native", "onnx", "onnx"]


@pytest.mark.usefixtures("slow_exports")
def test_a_plan_says_what_the_run_does(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two runs would be too many rows for a small job; a plan is no run.
    monkeypatch.setattr(small_jobs.SmallJob, "most_rows", 1000)
    with Engine(Pair()) as engine:
        plan = engine.plan(X)
        opened = engine._shared
        dists = engine.generate(X)
        assert engine._shared is opened
    assert (plan.runner, plan.reason) == run_in_words(dists)
    assert plan.runner == "native"


def test_a_run_is_resumed_with_the_runner_that_it_was_begun_with(tmp_path: Path) -> None:
    class Broken:
        """Rows of which one cannot be read, the first time."""

        is_broken = True

        def __len__(self) -> int:
            return len(X)

        def __getitem__(self, index: int) -> Any:
            if index == 500 and self.is_broken:
                raise OSError("not there")
            return X[index], 0

    rows, out = Broken(), tmp_path / "rows.npy"
    keep_export_s("pair", 1e6)
    with pytest.raises(fo.errors.DataError):
        fo.generate(Pair(), rows, out=out)
    for _ in range(MOST_EXPORTS):
        keep_export_s("pair", 0.0)
    rows.is_broken = False
    resumed = fo.generate(Pair(), rows, out=out, resume=True)
    kind, reason = run_in_words(resumed)
    assert kind == "native"
    assert reason is not None
    assert "a small job: 600 rows" in reason
    assert resumed.probs.tobytes() == fo.generate(Pair(), X, runner="native").probs.tobytes()


def test_a_finished_result_is_returned_whichever_runner_would_be_chosen_now(tmp_path: Path) -> None:
    out = tmp_path / "rows.npy"
    keep_export_s("pair", 1e6)
    first = fo.generate(Pair(), X, out=out)
    for _ in range(MOST_EXPORTS):
        keep_export_s("pair", 0.0)
    again = fo.generate(Pair(), X, out=out, resume=True)
    assert run_in_words(again) == run_in_words(first)


@pytest.mark.parametrize(
    ("calls", "rows", "is_small"),
    [
        # 3 times 2 s, and 1 ms per row in the quickest call.
        ([(64, 0.5), (64, 0.064)], 5999, True),
        ([(64, 0.5), (64, 0.064)], 6000, False),
        # The only call was slow, but would not make the job large.
        ([(64, 0.064)], 5999, True),
    ],
)
def test_a_job_is_small_below_three_times_the_cost_of_an_export(
    calls: list[tuple[int, float]], rows: int, is_small: bool
) -> None:
    keep_export_s("pair", 2.0)
    job = find_small_job(reference_with(*calls), rows, "pair")
    assert (job is not None) == is_small
    if job is not None:
        assert job.most_rows == 5999


def test_the_only_call_is_made_again_if_it_would_make_the_job_a_large_one() -> None:
    keep_export_s("pair", 2.0)
    # Cold it took a second; warm it takes microseconds.
    job = find_small_job(reference_with((64, 1.0)), 600, "pair")
    assert job is not None
    assert job.row_s < 1 / 64
    # What took very long is not made again.
    assert find_small_job(reference_with((64, 30.0)), 600, "pair") is None


def test_the_median_of_the_last_exports_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert expected_export_s("torch") == 3.0
    assert expected_export_s("another") == 1.0
    for seconds in (100.0, *[4.0, 6.0] * 4):
        keep_export_s("torch", seconds)
    assert expected_export_s("torch") == 6.0
    assert expected_export_s("jax") == 3.0
    keep_export_s("torch", 5.0)  # of nine, so that the 100 s are forgotten
    assert expected_export_s("torch") == 5.0
    # Where nothing is kept, the first figures stay.
    monkeypatch.setenv(user_cache.LIMIT_VARIABLE, "0")
    keep_export_s("torch", 50.0)
    assert expected_export_s("torch") == 3.0


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.01, "less than 0.1 s"), (0.1, "about 0.1 s"), (3, "about 3.0 s"), (41.2, "about 41 s")]
)
def test_seconds_in_words(seconds: float, text: str) -> None:
    assert small_jobs.seconds_text(seconds) == text
