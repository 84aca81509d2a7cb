"""The precision of a run: chosen within a budget, recorded, and the same again. Speeds are given; everything else is real."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from array_framework import Pair, pairs  # noqa: F401 a fixture
from broken_rows import BrokenRows
from click.testing import CliRunner
from onnx_files import CLASSES, WEIGHTS, convolutional, images, linear, node, rows

import fo_onnx as fo
from fo_onnx.cli.main import main
from fo_onnx.contracts.batch import Batch
from fo_onnx.contracts.options import RunOptions
from fo_onnx.contracts.runner import CallTime, RunOutput
from fo_onnx.engine import choose_precision
from fo_onnx.engine.spot_checks import SpotChecks
from fo_onnx.runtime.compare_speed import SpeedComparison
from fo_onnx.runtime.measurements import Measurements

N = 1500
FAST, SAME = 2.0, 1.0


@pytest.fixture
def speeds(monkeypatch):
    """How many times as fast as float32 each trial is, in the order of the trials; the last one holds for all further ones."""
    given, calls = [FAST], []

    def compare(first, second):
        calls.append(len(second.batches))
        return SpeedComparison(((1000.0, 1000.0 * given[min(len(calls), len(given)) - 1]),))

    monkeypatch.setattr(choose_precision, "compare_speed", compare)
    return given, calls


@pytest.fixture
def path(tmp_path):
    return convolutional(tmp_path / "net.onnx")


def generate(path, x=None, **options):
    return fo.generate(path, images(N) if x is None else x, progress=False, **options)


def distances(one, other):
    return np.abs(one.probs.astype(np.float64) - other.probs).sum(axis=1) / 2


def test_the_fastest_within_the_budget_is_taken_and_recorded(path, speeds):
    speeds[0][:] = [1.5, 3.0, SAME]
    lower, float32 = generate(path, precision="auto"), generate(path)
    apart = distances(lower, float32)
    assert 0 < np.percentile(apart, 99) <= 0.01
    record = lower.meta["precision"]
    assert lower.meta["engine"]["precision"] == record["choice"] == "int8-edges"
    assert [t["name"] for t in record["trials"]] == ["int8", "int8-edges", "int8-edges-signed"]
    assert [t["speedup"] for t in record["trials"]] == [1.5, 3.0, 1.0]
    assert all(0 < t["p99_tv"] <= t["max_tv"] < 0.05 for t in record["trials"])
    assert record["calibrated_rows"] == 160
    assert record["judged_rows"] == 480
    assert record["reason"] == "the fastest on this machine within tv_budget=0.01"
    assert float32.meta["precision"] is None
    assert float32.meta["engine"]["precision"] == "float32"


def test_where_nothing_is_faster_the_run_is_in_float32_in_every_bit(path, speeds):
    speeds[0][:] = [SAME]
    stays = generate(path, precision="auto")
    assert stays.probs.tobytes() == generate(path).probs.tobytes()
    assert stays.meta["engine"]["precision"] == "float32"
    assert stays.meta["precision"]["reason"] == "nothing within tv_budget=0.01 is faster on this machine"
    assert stays.meta["precision"]["trials"]


def test_where_nothing_is_near_enough_the_run_is_in_float32(path, speeds):
    stays = generate(path, precision="auto", tv_budget=1e-7)
    assert stays.meta["precision"]["choice"] == "float32"
    assert stays.meta["precision"]["reason"] == "nothing is within tv_budget=1e-07"
    # The whole net, without its edges, and then less and less of it.
    names = [t["name"] for t in stays.meta["precision"]["trials"]]
    assert names == ["int8", "int8-edges", "int8-layers", "int8-half", "int8-quarter", "int8-eighth"]


def test_the_same_job_is_run_in_the_same_precision_without_a_second_measurement(path, speeds):
    first = generate(path, precision="auto")
    count = len(speeds[1])
    speeds[0][:] = [SAME]
    second = generate(path, precision="auto")
    assert len(speeds[1]) == count
    assert second.probs.tobytes() == first.probs.tobytes()
    assert second.meta["precision"] == first.meta["precision"]
    # Another budget, or other rows, are another job.
    assert generate(path, precision="auto", tv_budget=0.02).meta["precision"]["choice"] == "float32"
    assert generate(path, images(N, seed=1), precision="auto").meta["precision"]["choice"] == "float32"


def test_a_choice_is_pinned_by_its_name(path, speeds, empty_cache, monkeypatch, tmp_path):
    first = generate(path, precision="auto")
    name = first.meta["precision"]["choice"]
    # On another machine, with nothing in its cache.
    monkeypatch.setenv("FO_ONNX_CACHE_DIR", str(tmp_path / "elsewhere"))
    again = generate(path, precision=name)
    assert again.probs.tobytes() == first.probs.tobytes()
    assert again.meta["precision"]["sha256"] == first.meta["precision"]["sha256"]
    assert again.meta["precision"]["reason"] == "asked for by name"


def test_a_record_that_is_damaged_or_of_another_file_is_not_taken(path, speeds, monkeypatch):
    first = generate(path, precision="auto")
    for damage in ({"choice": 5}, {"choice": "../int8"}, {"sha256": "0" * 64}, {"unknown": 1}):
        record = {**first.meta["precision"], **damage}
        monkeypatch.setattr(Measurements, "read", lambda self, kind, key, record=record: record)
        count = len(speeds[1])
        assert generate(path, precision="auto").meta["precision"]["choice"] == first.meta["precision"]["choice"]
        assert len(speeds[1]) > count


@pytest.mark.parametrize("begun", ["int8", "float32"])
def test_a_resumed_run_keeps_its_precision(path, speeds, tmp_path, monkeypatch, begun):
    speeds[0][:] = [FAST if begun == "int8" else SAME]
    whole = generate(path, precision="auto", batch_size=50)
    assert whole.meta["precision"]["choice"].startswith(begun)

    x, out = images(N), tmp_path / "d.parquet"
    with pytest.raises(fo.DataError, match=r"row 1000"):
        fo.generate(path, BrokenRows(x, 1000), precision="auto", batch_size=50, out=out, progress=False)
    # What is measured now would choose otherwise, and nothing is remembered.
    monkeypatch.setattr(Measurements, "read", lambda self, kind, key: None)
    speeds[0][:] = [SAME if begun == "int8" else FAST]
    with pytest.raises(fo.ResumeError, match=r"tv_budget \(0.01 then, 0.5 now\)"):
        fo.generate(
            path, BrokenRows(x), precision="auto", tv_budget=0.5, batch_size=50, out=out, resume=True, progress=False
        )
    resumed = fo.generate(path, BrokenRows(x), precision="auto", batch_size=50, out=out, resume=True, progress=False)
    assert resumed.probs.tobytes() == whole.probs.tobytes()
    assert resumed.meta["precision"] == whole.meta["precision"]


def test_too_few_rows_to_judge_stay_in_float32(path, speeds):
    few = generate(path, images(200), precision="auto")
    assert few.meta["precision"]["choice"] == "float32"
    assert "rows of the data are left to judge it with" in few.meta["precision"]["reason"]
    with pytest.raises(fo.OptionError, match=r"precision='int8' was asked for, and cannot be had: .* at least 100"):
        generate(path, images(200), precision="int8")


def test_rows_that_come_in_order_alone_are_judged_too(path, speeds):
    x = images(N)
    lower = fo.generate(path, iter(x.reshape(-1, 50, 3, 8, 8)), precision="auto", progress=False)
    assert lower.meta["precision"]["judged_rows"] == 480
    assert lower.meta["rows"]["written"] == N


def test_rows_without_a_distribution_neither_calibrate_nor_judge(path, speeds):
    x = images(N)
    x[::2, 0, 0, 0] = np.nan
    lower = generate(path, x, precision="auto", on_error="skip")
    assert lower.meta["precision"]["choice"].startswith("int8")
    assert lower.meta["precision"]["judged_rows"] < 300


def test_a_batch_size_that_is_built_in_is_kept(tmp_path, speeds):
    path = convolutional(tmp_path / "net.onnx", batch=7)
    lower = generate(path, precision="auto")
    assert lower.meta["engine"]["batch_size"] == 7
    assert lower.meta["precision"]["choice"].startswith("int8")
    assert np.percentile(distances(lower, generate(path)), 99) <= 0.01


def test_a_precision_beyond_the_budget_is_refused_by_name(path, speeds):
    with pytest.raises(fo.ParityError, match=r"int8: not timed, 99th percentile .* is above tv_budget=1e-06"):
        generate(path, precision="int8", tv_budget=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tv_budget": 0.01}, "tv_budget=0.01 was given with precision='float32'"),
        ({"tv_budget": 0.01, "precision": "tf32"}, "say precision='auto', or leave tv_budget= out"),
        (
            {"tv_budget": 0, "precision": "auto"},
            r"tv_budget=0 is not usable: a total variation in \(0, 1\] was expected",
        ),
        ({"tv_budget": 1.5, "precision": "auto"}, "tv_budget=1.5 is not usable"),
        ({"tv_budget": "small", "precision": "auto"}, "tv_budget='small' is not usable"),
        ({"precision": "auto", "runner": "native"}, "precision='auto' was asked for with runner='native'"),
        ({"precision": "int8", "runner": "native"}, "precision='int8' was asked for with runner='native'"),
        ({"precision": "int7"}, "precision='int7' is not a choice; the choices are 'float32', 'tf32', 'auto', 'int8'"),
    ],
)
def test_arguments_that_do_not_fit(options, message):
    with pytest.raises(fo.OptionError, match=message):
        RunOptions(**options)


def test_what_this_device_has_not_is_refused_by_name(path):
    with pytest.raises(
        fo.OptionError,
        match=r"precision='bf16' was asked for, and cannot be had: it needs OpenVINO's .*fo-onnx\[openvino\]",
    ):
        generate(path, precision="bf16")


def test_a_net_without_layers_to_quantise_stays_in_float32(tmp_path, speeds):
    path = linear(tmp_path / "linear.onnx")
    stays = generate(path, rows(N), precision="auto")
    assert "none of its layers can be quantised" in stays.meta["precision"]["reason"]
    with pytest.raises(fo.OptionError, match="none of its layers can be quantised"):
        generate(path, rows(N), precision="int8")


def test_a_file_whose_rows_depend_on_their_batch_stays_in_float32(tmp_path, speeds):
    path = linear(
        tmp_path / "mixing.onnx", node("ReduceMean", ["z"], ["m"], axes=[0]), node("Sub", ["z", "m"], ["y"]), output="y",
        opset=17,
    )  # fmt: skip
    with pytest.warns(fo.FallbackWarning, match="row by row"):
        stays = generate(path, rows(N), precision="auto")
    assert "mixes the rows of a batch" in stays.meta["precision"]["reason"]
    with pytest.raises(fo.OptionError, match="mixes the rows"), pytest.warns(fo.FallbackWarning):
        generate(path, rows(N), precision="int8")


def test_a_model_that_runs_natively_stays_in_float32():
    def half(x):
        return np.full((len(x), 2), 0.5)

    stays = fo.generate(half, rows(N), precision="auto", progress=False)
    assert stays.meta["runner"]["kind"] == "native"
    assert stays.meta["precision"]["choice"] == "float32"
    assert stays.meta["precision"]["reason"] == "a plain callable has no graph that could become ONNX"
    with pytest.raises(fo.ExportError):
        fo.generate(half, rows(N), precision="int8", progress=False)


# A model of a framework: spot checks know of the budget ----------------------------------------------------------------

RNG = np.random.default_rng(2)
HIDDEN, LAST = (RNG.standard_normal(shape).astype(np.float32) for shape in ((CLASSES, 32), (32, CLASSES)))
LAYERS = (node("MatMul", ["z", "h"], ["a"]), node("Relu", ["a"], ["b"]), node("MatMul", ["b", "l"], ["y"]))


def deep(original):
    return Pair(original, LAYERS, "y", {"h": HIDDEN, "l": LAST * 0.02})


def forward(x):
    return np.maximum(x @ WEIGHTS @ HIDDEN, 0) @ (LAST * 0.02)


@pytest.mark.usefixtures("pairs")
def test_rows_may_differ_from_the_original_by_the_budget(speeds):
    lower = fo.generate(deep(forward), rows(200_000), precision="auto", tv_budget=0.05, progress=False)
    assert lower.meta["precision"]["choice"].startswith("int8")
    checks = lower.meta["spot_checks"]
    assert checks["failure"] is None
    assert checks["beyond_budget"] <= 5 + 0.02 * checks["rows"]
    assert lower.meta["parity"]["max_tv"] < 1e-4  # of the float32 file


class Original:
    """A model whose distributions are all the same, (0.5, 0.5)."""

    def one_thread(self):
        return contextlib.nullcontext()

    def run(self, inputs):
        return RunOutput(np.full((len(inputs["0"]), 2), 0.5, np.float32))


@pytest.mark.parametrize(("beyond", "ends"), [(0, False), (5, False), (6, False), (20, True)])
def test_spot_checks_count_the_rows_beyond_the_budget(beyond, ends):
    """Of 100 rows 7 may be: 5 and 2 %."""
    checks = SpotChecks(Original(), 1e-4, CallTime(1, 1e-3), tv_budget=0.02)
    probs = np.full((100, 2), 0.5, np.float32) + np.where(np.arange(100) < beyond, 0.5, 0.015)[:, None] * [1, -1]
    batch = Batch(np.arange(100), {"0": np.zeros((100, 1))}, None, 0)

    def check_every_row():
        for row in range(100):
            checks._take(batch, RunOutput(probs.astype(np.float32)), np.array([row]))
        checks._begun -= 1000  # There is time for all of them.
        checks.finish()

    if not ends:
        check_every_row()
        assert checks.to_dict()["beyond_budget"] == beyond
        assert checks.to_dict()["rows"] == 100
        return
    with pytest.raises(fo.ParityError, match=r"20 of 100 rows that the original ran again differ .* tv_budget=0.02"):
        check_every_row()


def test_the_command_says_what_was_tried(path, speeds, tmp_path):
    np.save(tmp_path / "x.npy", images(N))
    command = ["generate", str(path), "--data", str(tmp_path / "x.npy"), "-o", str(tmp_path / "d.parquet")]
    told = CliRunner().invoke(main, [*command, "--precision", "auto", "--tv-budget", "0.02"])
    assert told.exit_code == 0, told.output
    assert "within tv_budget=0.02" in told.stdout
    assert "tried int8: 2.00 times float32, 99th percentile of total variation" in told.stdout
    planned = CliRunner().invoke(
        main, [*command[:4], "--dry-run", "--json", "--precision", "auto", "--tv-budget", "0.02"]
    )
    assert json.loads(planned.stdout)["precision"]["choice"].startswith("int8")
    refused = CliRunner().invoke(main, [*command, "--overwrite", "--tv-budget", "0.02"])
    assert refused.exit_code == 1
    assert "say --precision auto, or leave --tv-budget out" in refused.stderr
