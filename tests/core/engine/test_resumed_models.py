"""A run is resumed by the model that it was begun with, also where a fingerprint does not see what changed."""

from __future__ import annotations

import numpy as np
import pytest
from broken_rows import BrokenRows
from onnx_files import linear, node, rows

import fo_onnx as fo

X = rows(1000)
WEIGHTS = rows(6, seed=1)[:, :3] * 2
scale = 1.0


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def scaled(x):
    """A function that reads a global of its module."""
    return softmax(scale * (x @ WEIGHTS))


class Weights:
    def __init__(self):
        self.sign = 1.0


class Wrap:
    """An object over an object."""

    def __init__(self, net):
        self.net = net

    def predict(self, x):
        return softmax(self.net.sign * (x @ WEIGHTS))


@pytest.fixture(params=["a global", "an object in an object"])
def model_and_change(request, monkeypatch):
    """A model, and what changes its weights, or changes them back."""
    if request.param == "a global":
        monkeypatch.setattr(f"{__name__}.scale", 1.0)
        return scaled, lambda: monkeypatch.setattr(f"{__name__}.scale", -scale)
    weights = Weights()
    return Wrap(weights).predict, lambda: setattr(weights, "sign", -weights.sign)


def rows_of(*broken, x=X):
    """Rows that are read one by one. Some cannot be read."""
    return BrokenRows(x, *broken)


def stop(model, out, *broken, **options):
    """Begin a run that stops at row 700."""
    with pytest.raises(fo.DataError, match=r"row 700 .*resume=True"):
        fo.generate(model, rows_of(700, *broken), out=out, **options)


@pytest.mark.parametrize("runner", ["auto", "native"])
def test_a_model_that_changed_out_of_sight_does_not_go_on(model_and_change, runner, tmp_path):
    (model, change), out = model_and_change, tmp_path / "d.parquet"
    expected = fo.generate(model, X, runner=runner).probs
    stop(model, out, runner=runner)
    change()
    with pytest.raises(
        fo.ResumeError,
        match=r"the model gives other rows than those that are finished: row 0 \(id 0\) differs by a total variation of .* "
        r"\(256 of 256 compared rows differ\).* Give the model that the run was begun with, or begin anew with overwrite=True",
    ):
        fo.generate(model, rows_of(), out=out, resume=True, runner=runner)
    with pytest.raises(fo.ResumeError, match="the model gives other rows"), fo.Engine(model, runner=runner) as engine:
        engine.plan(rows_of(), out=out, resume=True)
    # Both ways out are open.
    change()
    assert (fo.generate(model, rows_of(), out=out, resume=True, runner=runner).probs == expected).all()
    change()
    other = fo.generate(model, rows_of(), out=out, overwrite=True, runner=runner)
    assert (other.probs == fo.generate(model, X, runner=runner).probs).all()


@pytest.mark.parametrize("name", ["d.parquet", "d.npy", "folder"])
def test_a_finished_result_of_a_model_that_changed_out_of_sight(model_and_change, name, tmp_path):
    (model, change), out = model_and_change, tmp_path / name
    first = fo.generate(model, X, out=out)
    assert (fo.generate(model, X, out=out, resume=True).probs == first.probs).all()
    change()
    with pytest.raises(fo.StoreError, match=r"finished result of another run: the model gives other rows: row 0 "):
        fo.generate(model, X, out=out, resume=True)
    assert not (fo.generate(model, X, out=out, overwrite=True).probs == first.probs).all()


@pytest.mark.parametrize("name", ["d.parquet", "d.npy"])
def test_a_finished_result_with_bad_rows_is_what_it_was(name, model_and_change, tmp_path):
    (model, change), ids = model_and_change, [f"sample {i}" for i in range(1000)]
    options = {"out": tmp_path / name, "on_error": "skip", "ids": ids}
    first = fo.generate(model, rows_of(3), **options)
    assert list(first) == list(fo.load(tmp_path / name)) == ids[:3] + ids[4:]
    assert (fo.generate(model, rows_of(3), resume=True, **options).probs == first.probs).all()
    change()
    with pytest.raises(fo.StoreError, match="the model gives other rows: row 0 "):
        fo.generate(model, rows_of(3), resume=True, **options)


def test_one_engine_over_both_parts(model_and_change, tmp_path):
    (model, change), out = model_and_change, tmp_path / "d.parquet"
    with fo.Engine(model) as engine:
        with pytest.raises(fo.DataError, match="row 700 "):
            engine.generate(rows_of(700), out=out)
        with pytest.raises(fo.DataError, match="row 900 "):
            engine.generate(rows_of(900), out=out, resume=True)
        change()
        with pytest.raises(fo.ResumeError, match="the model gives other rows"):
            engine.generate(rows_of(), out=out, resume=True)
        change()
        assert len(engine.generate(rows_of(), out=out, resume=True)) == 1000


def stream(*broken):
    yield from map(rows_of(*broken).__getitem__, range(1000))


def array(*broken):
    x = X.copy()
    x[list(broken)] = np.nan
    return x


@pytest.mark.parametrize("data", [array, stream], ids=lambda data: data.__name__)
def test_rows_in_memory_and_of_a_stream_are_run_again(model_and_change, data, tmp_path):
    (model, change), out = model_and_change, tmp_path / "d.parquet"
    with pytest.raises(fo.DataError, match="row 700 "):
        fo.generate(model, data(700), out=out)
    change()
    with pytest.raises(fo.ResumeError, match="the model gives other rows"):
        fo.generate(model, data(), out=out, resume=True, limit=1000)
    change()
    assert len(fo.generate(model, data(), out=out, resume=True, limit=1000)) == 1000


def test_the_first_row_that_differs_is_named(tmp_path):
    sign = {"value": 1.0}

    def model(x):
        return softmax((x @ WEIGHTS) * np.where(x[:, :1] == X[50, 0], sign["value"], 1.0))

    stop(model, tmp_path / "d.parquet")
    sign["value"] = -1.0
    with pytest.raises(fo.ResumeError, match=r"row 50 \(id 50\) .* \(1 of 256 compared rows differ\)"):
        fo.generate(model, rows_of(), out=tmp_path / "d.parquet", resume=True)


def test_bad_rows_among_the_first_are_not_compared(model_and_change, tmp_path):
    (model, change), out = model_and_change, tmp_path / "d.parquet"
    x = X.copy()
    x[7] = np.nan  # a row that the model gives no distribution
    with pytest.raises(fo.DataError, match="3 rows could not be read or run, and max_errors=2"):
        fo.generate(model, rows_of(3, 700, x=x), out=out, on_error="skip", max_errors=2, batch_size=4)
    change()
    with pytest.raises(fo.ResumeError, match="row 0 "):
        fo.generate(model, rows_of(x=x), out=out, resume=True, on_error="skip")
    change()
    # Row 3 can be read now, and stays what it was for this run.
    assert fo.generate(model, rows_of(x=x), out=out, resume=True, on_error="skip").meta["rows"]["written"] == 998


def test_a_model_that_samples_is_resumed(tmp_path):
    rng = np.random.default_rng(0)
    out = tmp_path / "d.parquet"

    def model(x):
        return softmax(x @ WEIGHTS + rng.normal(size=(len(x), 3)))

    with pytest.warns(UserWarning, match="samples"):
        stop(model, out, runner="auto")
    with pytest.warns(UserWarning, match="samples"):
        assert len(fo.generate(model, rows_of(), out=out, resume=True)) == 1000


@pytest.mark.parametrize("skipped", [(), (3,)], ids=["whole batches", "a bad row that was mended"])
@pytest.mark.filterwarnings("ignore:.*mixes the rows")
def test_a_model_that_mixes_rows_is_resumed_in_the_same_batches(skipped, tmp_path):
    out, sign = tmp_path / "d.parquet", {"value": 1.0}

    def model(x):
        return softmax(sign["value"] * ((x - x.mean(axis=0)) @ WEIGHTS))

    with pytest.raises(fo.DataError, match="max_errors"):
        fo.generate(model, rows_of(700, *skipped), out=out, on_error="skip", max_errors=len(skipped), batch_size=32)
    sign["value"] = -1.0
    with pytest.raises(fo.ResumeError, match="the model gives other rows"):
        fo.generate(model, rows_of(), out=out, resume=True)
    sign["value"] = 1.0
    assert len(fo.generate(model, rows_of(), out=out, resume=True)) == 1000 - len(skipped)


@pytest.mark.parametrize("machine", [1.0, 30.0], ids=["rounding", "more than rounding"])
def test_a_model_of_low_precision_is_resumed_where_it_is_rounded_otherwise(machine, tmp_path):
    """Rows may differ by three times what they differ by between batch sizes."""
    out, error = tmp_path / "d.parquet", {"value": 0.0}

    def model(x):
        return softmax(x @ WEIGHTS + np.array([error["value"] + 2e-3 * (len(x) == 1), 0, 0]))

    stop(model, out)
    error["value"] = 2e-3 * machine
    if machine == 1.0:
        assert len(fo.generate(model, rows_of(), out=out, resume=True)) == 1000
    else:
        with pytest.raises(fo.ResumeError, match="the model gives other rows"):
            fo.generate(model, rows_of(), out=out, resume=True)


@pytest.mark.parametrize(
    "options", [{"keep_logits": True}, {"temperature": 2.0}, {"batch_size": 7}, {"batch_size": 300}]
)
def test_logits_temperature_and_batch_sizes(options, tmp_path):
    out, sign = tmp_path / "d.parquet", {"value": 1.0}

    def model(x):
        return sign["value"] * (x @ WEIGHTS)

    stop(model, out, output="logits", **options)
    sign["value"] = -1.0
    with pytest.raises(fo.ResumeError, match="the model gives other rows"):
        fo.generate(model, rows_of(), out=out, resume=True, output="logits", **options)
    sign["value"] = 1.0
    resumed = fo.generate(model, rows_of(), out=out, resume=True, output="logits", **options)
    assert resumed.equals(fo.generate(model, X, output="logits", **options))


def test_a_file_that_samples_is_resumed(tmp_path):
    noise = node("RandomNormalLike", ["z"], ["noise"], scale=1.0)
    file = linear(tmp_path / "m.onnx", noise, node("Add", ["z", "noise"], ["y"]), output="y")
    with pytest.warns(UserWarning, match="row by row"):
        stop(file, tmp_path / "d.parquet", output="logits")
    assert len(fo.generate(file, rows_of(), out=tmp_path / "d.parquet", resume=True, output="logits")) == 1000


class Counting:
    """Notes in itself how it is called."""

    seen = 0

    def __init__(self):
        self.calls, self.weights = 0, WEIGHTS.copy()

    def __call__(self, x):
        self._note(x)
        Counting.seen += 1
        return softmax(x @ self.weights)

    def predict(self, x):
        return self(x)

    def _note(self, x):
        self.calls += 1
        self.last_size = len(x)


def counting_closure():
    calls, weights = 0, WEIGHTS.copy()

    def model(x):
        nonlocal calls
        calls += 1
        return softmax(x @ weights)

    model.weights = weights
    return model


@pytest.mark.parametrize("name", ["d.parquet", "folder"])
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(Counting, id="an object"),
        pytest.param(lambda: Counting().predict, id="a method"),
        pytest.param(counting_closure, id="a closure"),
    ],
)
def test_a_model_that_counts_its_calls_is_resumed(make, name, tmp_path):
    model, out = make(), tmp_path / name
    weights = (model.__self__ if hasattr(model, "__self__") else model).weights
    stop(model, out)
    # A small change of its weights is one, of which no row says much.
    weights[0, 0] += 1e-6
    with pytest.raises(fo.ResumeError, match=r"begun with something else: the model \(its weights or its code\)"):
        fo.generate(model, rows_of(), out=out, resume=True)
    weights[:] = WEIGHTS
    resumed = fo.generate(model, rows_of(), out=out, resume=True)
    assert (resumed.probs == fo.generate(model, X).probs).all()
    assert fo.generate(model, rows_of(), out=out, resume=True).equals(resumed)


class Averaging:
    """Adds up arrays over its calls."""

    def __init__(self):
        self.total = np.zeros(6)

    def __call__(self, x):
        self.total += x.sum(axis=0)
        return softmax(x @ WEIGHTS)


def test_a_model_that_adds_up_arrays_is_resumed_if_it_is_made_anew(tmp_path):
    model, out = Averaging(), tmp_path / "d.parquet"
    stop(model, out)
    with pytest.raises(
        fo.ResumeError,
        match=r"the model \(its weights .* it was begun with \(a model that adds up arrays .* made anew\), or",
    ):
        fo.generate(model, rows_of(), out=out, resume=True)
    assert len(fo.generate(Averaging(), rows_of(), out=out, resume=True)) == 1000
