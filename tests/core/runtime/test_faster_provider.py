"""OpenVINO in float32: taken where it was measured to be faster, and gives the same rows. Speeds are given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from broken_rows import BrokenRows
from onnx_files import convolutional, images

import fo_onnx as fo
from fo_onnx.contracts.batch_plan import MeasuredRate
from fo_onnx.runtime import faster_provider, measured_plan
from fo_onnx.runtime.compare_speed import SpeedComparison

PROVIDER = "OpenVINOExecutionProvider"
pytestmark = [
    pytest.mark.openvino,
    pytest.mark.skipif(PROVIDER not in onnxruntime.get_available_providers(), reason=f"no {PROVIDER}"),
]
X = images(600)


@pytest.fixture
def path(tmp_path):
    return convolutional(tmp_path / "net.onnx")


@pytest.fixture
def speeds(monkeypatch):
    """Each run is a long one, whose plan is measured; how many times as fast OpenVINO is, and what was compared."""
    rate = MeasuredRate(64, 2, 1, False, rows_per_s=len(X) / 100)

    def measured(opened, loaded, request):
        if request.run.batch_size != "auto" or request.recorded_plan is not None:
            return opened
        return replace(opened, plan=replace(opened.plan, measured=(rate,)))

    for module in ("fo_onnx.engine.open_file", "fo_onnx.conversion.prepare"):
        monkeypatch.setattr(f"{module}.choose_measured_plan", measured)
    ratio, compared = [2.0], []

    def compare(first, second):
        compared.append((first.runners[0].device, second.runners[0].device))
        return SpeedComparison(((1000.0, 1000.0 * ratio[0]),))

    monkeypatch.setattr(faster_provider, "compare_speed", compare)
    assert measured_plan.KIND != faster_provider.KIND
    return ratio, compared


def run(path, **options):
    return fo.generate(path, X, progress=False, **options)


def test_the_faster_provider_is_taken_recorded_and_taken_again(path, speeds):
    first = run(path)
    engine = first.meta["engine"]
    assert (engine["provider"], engine["device"], engine["precision"]) == (PROVIDER, "openvino:0", "float32")
    assert engine["provider_speedup"] == 2.0
    assert first.meta["model"]["path"] == "net.onnx"
    count = len(speeds[1])
    assert all(pair == ("cpu", "openvino:0") for pair in speeds[1])
    speeds[0][:] = [0.5]
    again = run(path)
    assert len(speeds[1]) == count
    assert again.probs.tobytes() == first.probs.tobytes()
    # It is in float32 indeed.
    np.testing.assert_allclose(first.probs, run(path, device="cpu").probs, atol=1e-6)


def test_where_it_is_slower_nothing_changes(path, speeds):
    speeds[0][:] = [1.0]
    stays, again = run(path), run(path)
    assert len(speeds[1]) == 1, "that it is slower is kept too"
    assert again.meta["engine"]["device"] == "cpu"
    assert stays.meta["engine"]["provider"] == "CPUExecutionProvider"
    assert stays.meta["engine"]["provider_speedup"] is None
    assert stays.probs.tobytes() == run(path, device="cpu").probs.tobytes()


def test_a_run_of_less_than_a_minute_is_not_worth_a_trial(path, speeds):
    short = fo.generate(path, X[:300], progress=False)
    assert short.meta["engine"]["device"] == "cpu"
    assert not speeds[1]


def test_what_is_pinned_stays_on_the_cpu(path, speeds):
    for options in ({"batch_size": 64}, {"device": "cpu"}):
        assert run(path, **options).meta["engine"]["device"] == "cpu"
    assert not speeds[1]


def test_other_rows_than_those_of_the_cpu_are_not_taken(path, speeds, monkeypatch):
    monkeypatch.setattr(faster_provider, "SAME", 0.0)
    assert run(path).meta["engine"]["device"] == "cpu"
    assert not speeds[1]


def test_openvino_as_the_device_is_cut_as_the_cpu(path, speeds):
    asked, cpu = (run(path, device=device).meta["engine"] for device in ("openvino", "cpu"))
    assert asked["provider"] == PROVIDER
    assert [asked[key] for key in ("batch_size", "sessions", "threads")] == [
        cpu[key] for key in ("batch_size", "sessions", "threads")
    ]


def test_a_run_on_it_is_resumed_on_it(path, speeds, tmp_path, monkeypatch):
    out = tmp_path / "d.parquet"
    with pytest.raises(fo.DataError, match="row 501"):
        fo.generate(path, BrokenRows(X, 501), out=out, progress=False)
    monkeypatch.setenv("FO_ONNX_CACHE_DIR", str(tmp_path / "empty"))
    resumed = fo.generate(path, BrokenRows(X), out=out, resume=True, progress=False)
    assert resumed.meta["engine"]["device"] == "openvino:0"
    monkeypatch.undo()
    np.testing.assert_allclose(resumed.probs, run(path, device="cpu").probs, atol=1e-6)
