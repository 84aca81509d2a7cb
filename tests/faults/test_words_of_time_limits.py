"""The error of a run whose time is up says what held it up, and nothing that is not so."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx_files import FEATURES, linear, rows
from slow_models import Model, request

import fo_onnx as fo
from fo_onnx.contracts.batch import Inputs
from fo_onnx.contracts.options import DataOptions, OutputOptions, RunOptions
from fo_onnx.contracts.runner import RunOutput
from fo_onnx.contracts.spec import ModelSpec
from fo_onnx.control.run_control import RunEnded, TimeUp, begin, current
from fo_onnx.engine.choose_runner import choose_runner
from fo_onnx.engine.labels import LabelMapper
from fo_onnx.engine.pipeline import Pipeline
from fo_onnx.models import plugins
from fo_onnx.sources import open_source
from fo_onnx.store import MemorySink


def slow_softmax(raw: np.ndarray) -> np.ndarray:
    time.sleep(0.5)
    e = np.exp(raw)
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("kind", ["onnx", "native", "no rows"])
def test_an_output_transform_that_had_to_be_waited_for_is_named(tmp_path: Path, kind: str) -> None:
    model = linear(tmp_path / "m.onnx") if kind == "onnx" else lambda x: x
    x = np.empty((0, FEATURES), np.float32) if kind == "no rows" else rows(200)
    expected = r"timeout_s=0\.3 s; it had to wait until the call of output_transform= of 0\.[5-9] s ended"
    with pytest.raises(TimeUp, match=expected):
        fo.generate(model, x, output_transform=slow_softmax, timeout_s=0.3, batch_size=16, progress=False)


def test_an_output_transform_that_fails_late_is_the_end_of_the_time() -> None:
    def failing(raw: np.ndarray) -> np.ndarray:
        time.sleep(0.5)
        raise ValueError("too late")

    with pytest.raises(TimeUp, match="the call of output_transform="):
        fo.generate(lambda x: x, rows(20), output_transform=failing, timeout_s=0.3, progress=False)


def test_reading_is_not_blamed_for_what_was_late_before_it() -> None:
    """Something that looks at no clock took the time; the row would have been read at once."""
    with begin(30) as control:
        control.timeout_s, control._deadline = 0.2, time.monotonic() - 1
        with pytest.raises(RunEnded) as caught:
            control.bounded(lambda: "a row", "while a row was being read")
    assert str(caught.value.error) == "the run reached its timeout_s=0.2 s."


class Failing:
    """A session that fails, after a while that cannot be cut off."""

    device, kind = "cpu", "onnx"

    def __init__(self, spec: ModelSpec, seconds: float) -> None:
        self.spec, self.seconds = spec, seconds

    def run(self, inputs: Inputs) -> RunOutput:
        with current().calling("a batch"):
            time.sleep(self.seconds)
            raise fo.RunError("the session failed")

    def close(self) -> None:
        """Nothing to free."""


@pytest.mark.parametrize(
    ("session_s", "native_s", "named", "kept"), [(0.5, 0, "a batch", 0), (0, 0.5, "the model's own call", 16)]
)
def test_a_switch_to_the_native_runner(session_s: float, native_s: float, named: str, kept: int) -> None:
    """A run that is over does not switch; one that has switched ends with its time, and keeps what was late."""
    model = Model()
    opened = choose_runner(request(model))
    assert opened.open_native is not None
    model.forward_s = native_s
    source = open_source(rows(64), DataOptions(), tuple(plugins.source_factories()))
    opened = replace(opened, runners=(Failing(opened.spec, session_s),), plan=replace(opened.plan, batch_size=16))
    labels = LabelMapper(source, opened.spec)
    pipeline = Pipeline(opened, source, labels, DataOptions(), RunOptions(progress=False), OutputOptions())
    sink = MemorySink(64, classes=4, id_kind="int", labels=False, logits=False)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with pytest.raises(TimeUp, match=f"it had to wait until {named} of 0.[5-9] s ended"), begin(0.3):
            pipeline.execute(sink)
    assert pipeline.stats.written == kept
    assert [w.category for w in told] == [fo.FallbackWarning] * (kept > 0)
