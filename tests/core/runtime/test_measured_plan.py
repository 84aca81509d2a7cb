"""Plans that are measured: when, of what, with which sessions; and that the same job is cut the same way again.

The seconds of a turn are made up, so that nothing here depends on the machine; sessions, files and records are real.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from fresh_python import run_python
from onnx_files import FEATURES, expected, linear, node, rows

import fo_onnx as fo
from fo_onnx.contracts.batch import Batch
from fo_onnx.errors import RunError
from fo_onnx.runtime import measured_plan, open_runners
from fo_onnx.runtime.measurements import Measurements
from fo_onnx.runtime.opened import OpenedModel
from fo_onnx.runtime.workers import Failure

FASTEST = 8
ROWS = rows(5000)
Turn = tuple[int, int, int, bool]


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[Turn]:
    """Batch size, sessions, threads and spinning of each turn; on two cores, batches of 8 rows are twice as fast."""
    for module in ("open_runners", "request", "measured_plan", "measurements"):
        monkeypatch.setattr(f"fo_onnx.runtime.{module}.cpu_cores", lambda: 2)
    seen: list[Turn] = []

    def time_turn(opened: OpenedModel, batches: Iterator[Batch], count: int) -> float:
        batch, plan = next(batches), opened.plan
        assert len(opened.runners) == plan.sessions
        for runner in opened.runners:
            assert runner.run(batch.inputs).probs.shape[0] == len(batch)
        seen.append((len(batch), plan.sessions, plan.threads, plan.spinning))
        rate = 2000 if (len(batch), plan.sessions) == (FASTEST, 2) else 1000
        return count * len(batch) / rate

    monkeypatch.setattr(measured_plan, "_time", time_turn)
    return seen


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return linear(tmp_path / "m.onnx")


def generate(path: Any, data: Any = ROWS, **arguments: Any) -> fo.Distributions:
    return fo.generate(path, data, output="logits", **arguments)


def tuning(result: fo.Distributions) -> dict[str, Any]:
    found: dict[str, Any] = result.meta["engine"]["tuning"]
    return found


def cut(found: dict[str, Any]) -> Turn:
    return found["batch_size"], found["sessions"], found["threads"], found["spinning"]


def test_a_long_run_is_cut_as_was_fastest(turns: list[Turn], path: Path) -> None:
    result = generate(path)
    found = tuning(result)
    assert (found["chosen"], cut(found)) == ("measured", (FASTEST, 2, 1, False))
    engine = result.meta["engine"]
    assert [engine[key] for key in ("batch_size", "sessions", "threads")] == [FASTEST, 2, 1]
    np.testing.assert_allclose(result.probs, expected(ROWS), atol=1e-6)
    # All ways were tried: sizes from 1 on, one session over both cores, spinning or not.
    rates = {cut(rate): rate["rows_per_s"] for rate in found["measured"]}
    assert {size for size, *_ in rates} >= {1, 2, 4, 8, 16, 32, 64, 128, 256}
    assert (2 * FASTEST, 1, 2, True) in rates
    assert rates[FASTEST, 2, 1, False] == 2000
    assert rates[256, 2, 1, False] == 1000
    json.dumps(found)


def test_the_same_job_is_cut_the_same_way_without_measuring(turns: list[Turn], path: Path, tmp_path: Path) -> None:
    first = generate(path)
    turns.clear()
    again = generate(path)
    assert turns == []
    assert tuning(again) == tuning(first) | {"chosen": "as recorded"}
    np.testing.assert_array_equal(again.probs, first.probs)
    # What the choice depends on: the file's content, the rows' shapes and dtypes; not its name.
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(path.read_bytes())
    assert tuning(generate(copy))["chosen"] == "as recorded"
    other = linear(tmp_path / "other.onnx", weights=np.ones((FEATURES, 3), np.float32))
    assert tuning(generate(other))["chosen"] == "measured"
    assert tuning(generate(path, ROWS.astype(np.float64)))["chosen"] == "measured"


def test_a_short_run_is_cut_by_rule_before_and_after(turns: list[Turn], path: Path) -> None:
    few = ROWS[:150]

    def generate_few() -> None:
        found = tuning(generate(path, few))
        assert (found["chosen"], found["batch_size"], found["measured"]) == ("by rule", 256, [])

    generate_few()
    assert Measurements.of_user().count() == 0
    generate(path)
    assert Measurements.of_user().count() == 1
    turns.clear()
    generate_few()
    assert turns == [], "by what is known of longer runs it is short"


def test_what_is_given_is_not_measured(turns: list[Turn], path: Path) -> None:
    found = tuning(generate(path, batch_size=7))
    assert (found["chosen"], found["batch_size"]) == ("batch size given", 7)
    assert tuning(generate(path, runner="onnx", device=["cpu"]))["chosen"] == "by rule"
    assert turns == []


def test_an_unknown_number_of_rows_is_not_measured(turns: list[Turn], path: Path) -> None:
    assert tuning(generate(path, (row for row in ROWS)))["chosen"] == "by rule"
    with fo.Engine(path, output="logits") as engine:
        engine.predict(ROWS)
    assert turns == []


def mixing(path: Path) -> Path:
    """Rows that depend on the mean of their batch."""
    mean = node("ReduceMean", ["z", "axes"], ["m"])
    return linear(path, mean, node("Sub", ["z", "m"], ["y"]), output="y", initializers={"axes": np.array([0])})


def test_rows_that_depend_on_their_batch_are_not_measured(turns: list[Turn], tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="runs row by row"):
        found = tuning(generate(mixing(tmp_path / "mixing.onnx")))
    assert (found["chosen"], found["batch_size"]) == ("its rows depend on their batch", 1)
    fixed = linear(tmp_path / "fixed.onnx", batch=4)
    assert tuning(generate(fixed))["chosen"] == "batch size built into the model"
    assert turns == []


def test_weights_that_would_not_fit_beside_the_others(turns: list[Turn], path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(measured_plan, "WEIGHTS_LIMIT_BYTES", int(2.5 * path.stat().st_size))
    assert tuning(generate(path))["chosen"] == "measured"
    assert {sessions for _, sessions, _, _ in turns} == {2}


def test_sessions_that_are_not_chosen_are_closed(
    turns: list[Turn], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    runner = open_runners.OnnxRunner

    def remember(*arguments: Any, **options: Any) -> Any:
        opened.append(runner(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(open_runners, "OnnxRunner", remember)
    with fo.Engine(path, output="logits") as engine:
        engine.generate(ROWS)
        assert [r._session is not None for r in opened] == [True, True, False]
    assert all(r._session is None for r in opened)


def test_other_sessions_take_the_place_of_those_by_rule(
    turns: list[Turn], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = measured_plan._time

    def one_is_faster(opened: OpenedModel, batches: Iterator[Batch], count: int) -> float:
        return slow(opened, batches, count) * (1 if opened.plan.sessions == 2 else 0.2)

    monkeypatch.setattr(measured_plan, "_time", one_is_faster)
    with fo.Engine(path, output="logits") as engine:
        result = engine.generate(ROWS)
        assert cut(tuning(result))[1:3] == (1, 2)
        assert engine._shared is not None
        assert len(engine._shared.opened.runners) == 1
        np.testing.assert_array_equal(engine.generate(ROWS).probs, result.probs)
    np.testing.assert_allclose(result.probs, expected(ROWS), atol=1e-6)


@pytest.mark.parametrize("error", [None, RunError("running net: no room")])
def test_where_measuring_fails_the_rule_holds(
    turns: list[Turn], path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Any
) -> None:
    def fail(opened: OpenedModel, batches: Iterator[Batch], count: int) -> float:
        raise RunError("running net: no room") if error is None else Failure(error, [])

    monkeypatch.setattr(measured_plan, "_time", fail)
    caplog.set_level("INFO")
    assert tuning(generate(path))["chosen"] == "by rule"
    assert "its run is cut by rule, since measuring failed: running net: no room" in caplog.text


@pytest.mark.parametrize(
    "changes",
    [
        {"plan": None},
        {"plan": {}},
        {"rule_rows_per_s": "fast"},
        {"rule_rows_per_s": 0},
        {"most_rows": "many"},
        {"plan": {"batch_size": 2**40, "sessions": 1, "threads": 1, "spinning": True, "measured": []}},
        {"plan": {"batch_size": 2, "sessions": 1, "threads": 1, "spinning": True, "measured": [{"rate": 1}]}},
    ],
    ids=str,
)
def test_a_record_of_something_else_is_not_taken(
    turns: list[Turn], path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, changes: Any
) -> None:
    keep = Measurements.keep
    monkeypatch.setattr(
        Measurements, "keep", lambda self, kind, key, value: keep(self, kind, key, {**value, **changes})
    )
    generate(path)
    monkeypatch.setattr(Measurements, "keep", keep)
    assert tuning(generate(path))["chosen"] == "measured"
    assert "before is not usable" in caplog.text
    assert tuning(generate(path))["chosen"] == "as recorded"


@pytest.mark.openvino
@pytest.mark.skipif("OpenVINOExecutionProvider" not in onnxruntime.get_available_providers(), reason="no OpenVINO")
def test_openvino_has_a_plan_of_its_own(turns: list[Turn], path: Path) -> None:
    on_cpu = tuning(generate(path, device="cpu"))
    turns.clear()
    first, again = (tuning(generate(path, device="openvino")) for _ in range(2))
    assert (first["chosen"], cut(first)) == ("measured", (FASTEST, 2, 1, False))
    assert again == first | {"chosen": "as recorded"}
    # Its threads are not told to spin or not.
    assert {spinning for *_, spinning in turns} == {False}
    assert (2 * FASTEST, 1, 2, False) in {cut(rate) for rate in first["measured"]}
    assert tuning(generate(path, device="cpu")) == on_cpu | {"chosen": "as recorded"}


def test_a_choice_in_haste_does_not_hold_for_longer_runs(
    turns: list[Turn], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = Measurements.keep
    monkeypatch.setattr(
        Measurements, "keep", lambda self, kind, key, value: keep(self, kind, key, {**value, "most_rows": 5000})
    )
    generate(path)
    assert tuning(generate(path))["chosen"] == "as recorded"
    assert tuning(generate(path, rows(5001)))["chosen"] == "measured"


def test_nothing_is_kept_without_a_cache(turns: list[Turn], path: Path, monkeypatch: Any, empty_cache: Path) -> None:
    monkeypatch.setenv("FO_ONNX_CACHE_GB", "0")
    assert [tuning(generate(path))["chosen"] for _ in range(2)] == ["measured", "measured"]
    assert not empty_cache.exists()


def test_a_resumed_run_keeps_its_plan(turns: list[Turn], path: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    good = generate(path)

    def broken(row: np.ndarray) -> np.ndarray:
        if row[0] == ROWS[4000, 0]:
            raise ValueError("a bad row")
        return row

    with pytest.raises(fo.DataError, match="a bad row"):
        generate(path, ROWS, transform=broken, out=out)
    turns.clear()
    Measurements.of_user().clear()
    with pytest.raises(fo.DataError, match="a bad row"):
        generate(path, ROWS, transform=broken, out=out, resume=True)
    result = generate(path, ROWS, transform=broken, out=out, resume=True, on_error="skip")
    assert turns == []
    assert cut(tuning(result)) == (FASTEST, 2, 1, False)
    assert tuning(result)["chosen"] == "as recorded"
    np.testing.assert_array_equal(result.probs, np.delete(good.probs, 4000, axis=0))


def test_a_plan_of_a_run_says_the_same(turns: list[Turn], path: Path) -> None:
    with fo.Engine(path, output="logits") as engine:
        plan = engine.plan(ROWS)
        assert (plan.batch_size, plan.sessions, plan.threads) == (FASTEST, 2, 1)
        assert tuning(engine.generate(ROWS))["chosen"] == "measured"


PROGRAM = """
import hashlib, json, sys
import numpy as np
import fo_onnx as fo
from fo_onnx.runtime import measured_plan, plan_search

# Every run is long enough to be measured, on this machine's own clock.
measured_plan.LEAST_RUN_S = plan_search.LEAST_RUN_S = 0.0
plan_search.MARGIN = plan_search.HASTY_MARGIN = 1.0
x = np.random.default_rng(0).standard_normal((3000, 6)).astype(np.float32)
result = fo.generate({path!r}, x, output="logits", **json.loads({arguments!r}))
print(json.dumps([result.meta["engine"]["tuning"], hashlib.sha256(result.probs.tobytes()).hexdigest()]))
"""


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A net whose rows differ in their last digits by how it is cut, since kernels sum in another order."""
    hidden = np.random.default_rng(1).standard_normal((FEATURES, 512)).astype(np.float32)
    out = np.random.default_rng(2).standard_normal((512, 4)).astype(np.float32)
    nodes: list[onnx.NodeProto] = [node("Tanh", ["z"], ["h"]), node("MatMul", ["h", "v"], ["y"])]
    return linear(
        tmp_path / "deep.onnx", *nodes, output="y", weights=hidden, shape=["batch", 4], initializers={"v": out}
    )


def test_fresh_processes_cut_the_same_job_the_same_way(deep: Path, empty_cache: Path) -> None:
    def run(**arguments: Any) -> tuple[dict[str, Any], str]:
        program = PROGRAM.format(path=str(deep), arguments=json.dumps(arguments))
        found, digest = json.loads(run_python(program))
        return found, digest

    (first, digest), *others = [run() for _ in range(3)]
    assert first["chosen"] == "measured"
    assert len(first["measured"]) > 2
    for found, other_digest in others:
        assert found == first | {"chosen": "as recorded"}
        assert other_digest == digest
    # Without what was kept, the record gives the same again.
    Measurements(empty_cache / "measurements").clear()
    found, other_digest = run(tuning=first, runner="onnx")
    assert (cut(found), found["chosen"], other_digest) == (cut(first), "as recorded", digest)
