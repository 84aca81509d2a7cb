"""Rows that go missing or come twice on their way in are never written without a word."""

from __future__ import annotations

import numpy as np
import pytest

import fo_onnx as fo

torch = pytest.importorskip("torch")
X = np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32)


class Stream(torch.utils.data.IterableDataset):
    def __init__(self, rows, said=None):
        self.rows, self.said = rows, said

    def __iter__(self):
        return iter(self.rows)

    def __len__(self):
        if self.said is None:
            raise TypeError
        return self.said


def model(x):
    return x * 3


def test_fewer_rows_than_were_said(tmp_path):
    loader = torch.utils.data.DataLoader(Stream(X[:90], said=100), batch_size=8)
    with pytest.raises(fo.DataError, match="it has 100 rows, and gave 90, so that rows are missing or doubled"):
        fo.generate(model, loader, out=tmp_path / "d.parquet")
    assert not (tmp_path / "d.parquet").exists()


def test_workers_that_each_read_the_whole_stream():
    loader = torch.utils.data.DataLoader(Stream(X), batch_size=8, num_workers=2)
    with pytest.raises(
        fo.DataError, match="IterableDataset with 2 workers.*rows come doubled or interleaved.*num_workers=1"
    ):
        fo.generate(model, loader)


def test_one_worker_is_right():
    loader = torch.utils.data.DataLoader(Stream(X), batch_size=8, num_workers=1)
    assert fo.generate(model, loader).equals(fo.generate(model, X, batch_size=256))


def test_bad_rows_are_written_down_only_beside_a_file():
    with pytest.raises(fo.OptionError, match="on_error='record' .* needs out="):
        fo.generate(model, X, on_error="record")


def test_callables_are_told_apart_across_processes(tmp_path):
    import subprocess
    import sys

    code = """
from fo_onnx.engine.callables import CallableExporter
class Scaled:
    def __init__(self, t): self.t = t
    def __call__(self, x): return x * self.t if x is not None else {"a", "b"} and 1
def f(x, y=3):
    return x in {"a", "b", "c", "d", "e"}
print([CallableExporter().fingerprint(m) for m in (Scaled(1), Scaled(2), f)])
"""
    path = tmp_path / "told.py"
    path.write_text(code)
    found = {
        subprocess.run(
            [sys.executable, str(path)], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2", "3")
    }
    (told,) = found
    assert len(set(eval(told))) == 3
