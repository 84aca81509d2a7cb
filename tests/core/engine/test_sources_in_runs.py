"""Rows that go missing or come twice on their way in are never written without a word."""

from __future__ import annotations

import os

import numpy as np
import pytest

import fo_onnx as fo

X = np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32)


def model(x):
    return x * 3


def test_bad_rows_are_written_down_only_beside_a_file():
    with pytest.raises(fo.OptionError, match="on_error='record' .* needs out="):
        fo.generate(model, X, on_error="record")


class Photos:
    """100 rows with a label, of which those at `bad` cannot be read."""

    def __init__(self, bad):
        self.bad = bad

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        if i in self.bad:
            raise OSError("cut short")
        return X[i], i % 4


@pytest.mark.parametrize("ids", [None, [f"{i}.png" for i in range(100)]], ids=["positions", "text"])
@pytest.mark.parametrize("out", [None, "rows.parquet", "folder"])
@pytest.mark.parametrize("bad", [range(20, 60), range(80), range(90, 100)], ids=["middle", "beginning", "end"])
def test_whole_batches_of_bad_rows_are_left_out(bad, out, ids, tmp_path):
    # With logits, and once without labels.
    options = {"output": "logits", "keep_logits": out is not None}
    has_labels = out != "folder"
    out = None if out is None else tmp_path / out
    dists = fo.generate(
        model, Photos(bad), ids=ids, batch_size=8, on_error="skip" if out is None else "record", out=out,
        labels=None if has_labels else False, **options,
    )  # fmt: skip
    sound = [i for i in range(100) if i not in bad]
    labels = np.array(sound) % 4 if has_labels else None
    expected = fo.generate(
        model, X[sound], labels=labels, ids=sound if ids is None else [ids[i] for i in sound], **options
    )
    assert dists.equals(expected)
    assert dists.meta["rows"]["skipped" if out is None else "quarantined"] == len(bad)


def test_callables_are_distinguished_across_processes(tmp_path):
    import subprocess
    import sys

    code = """
from fo_onnx.models.callables import CallableExporter
class Scaled:
    def __init__(self, t): self.t = t
    def __call__(self, x): return x * self.t if x is not None else {"a", "b"} and 1
def f(x, y=3):
    return x in {"a", "b", "c", "d", "e"}
print([CallableExporter().fingerprint(m, {}) for m in (Scaled(1), Scaled(2), f)])
"""
    path = tmp_path / "told.py"
    path.write_text(code)
    found = {
        subprocess.run(
            [sys.executable, str(path)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2", "3")
    }
    (told,) = found
    assert len(set(eval(told))) == 3


def test_a_function_that_works_in_place_touches_nothing_of_the_callers():
    x = X.copy()

    def doubled(a):
        a *= 2
        return a

    dists = fo.generate(doubled, x)
    assert (x == X).all()
    assert dists.equals(fo.generate(lambda a: a * 2, X))


def test_numbers_as_text_are_numbers():
    labels = [str(i % 3) for i in range(100)]
    assert fo.generate(lambda x: x[:, :3], X, labels=labels).labels.tolist() == [i % 3 for i in range(100)]


def test_arrays_that_differ_in_one_value_have_other_fingerprints(tmp_path):
    fo.generate(model, X, out=tmp_path / "d.json")
    changed = X.copy()
    changed[[3, 5]] = changed[[5, 3]]
    with pytest.raises(fo.StoreError, match=r"another run: the rows, their ids or their labels\."):
        fo.generate(model, changed, out=tmp_path / "d.json", resume=True)


def test_functions_of_one_name_are_distinguished(tmp_path):
    def made(weights):
        return lambda x: x @ weights

    fo.generate(made(np.eye(4)), X, out=tmp_path / "d.json", output="logits")
    with pytest.raises(fo.StoreError, match=r"another run: the model .its weights or its code.\."):
        fo.generate(made(-np.eye(4)), X, out=tmp_path / "d.json", output="logits", resume=True)


def test_a_column_of_ids(tmp_path):
    ids = [f"sample-{i}" for i in range(100)]
    dists = fo.generate(lambda d: d["x"], {"x": X, "id": ids, "y": np.arange(100) % 3})
    assert list(dists) == ids
    numbers = fo.generate(lambda d: d["x"], {"x": X, "ids": np.arange(100) + 7})
    assert numbers.ids.tolist() == list(range(7, 107))
    np.savez(tmp_path / "rows.npz", x=X, ids=np.array(ids))
    assert list(fo.generate(lambda d: d["x"], tmp_path / "rows.npz")) == ids
