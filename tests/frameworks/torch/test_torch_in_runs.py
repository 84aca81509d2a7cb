"""Torch models and loaders in whole runs: rows that go missing or come twice are never written without a word."""

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


def test_a_numpy_function_that_uses_torch_inside():
    net = torch.nn.Linear(4, 3)
    torch.nn.init.normal_(net.weight)

    def through_torch(a):
        with torch.no_grad():
            return net(torch.from_numpy(a)).numpy()

    dists = fo.generate(through_torch, X)
    with torch.no_grad():
        want = torch.softmax(net(torch.from_numpy(X)), 1).numpy()
    np.testing.assert_allclose(dists.probs, want, atol=1e-6)
    assert dists.meta["model"]["framework"] == "callable"
    forced = fo.generate(through_torch, X, framework="callable")
    assert forced.equals(dists)


def test_a_model_that_mixes_the_rows_of_a_batch_is_said_to(tmp_path):
    class Centred(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.l = torch.nn.Linear(4, 3)

        def forward(self, x):
            z = self.l(x) * 5
            return z - z.mean(0)

    with pytest.warns(fo.FallbackWarning, match="mixes the rows of a batch: a row differs"):
        dists = fo.generate(Centred(), X)
    assert "mixes the rows" in dists.meta["runner"]["reason"]
    # In ONNX it mixes them alike, which is what is asked for.
    with pytest.warns(fo.FallbackWarning, match="runs in ONNX all the same: the model mixes the rows of a batch"):
        dists = fo.generate(Centred(), X, runner="onnx")
    assert dists.meta["runner"]["kind"] == "onnx"
    assert not dists.meta["parity"]["passed"]
    with pytest.raises(fo.ParityError, match="mixes the rows of a batch"):
        fo.export(Centred(), X, tmp_path / "m.onnx")


def test_the_record_of_a_file_holds_what_its_export_measured(tmp_path):
    net = torch.nn.Linear(4, 3)
    exported = fo.export(net, X, tmp_path / "m.onnx")
    dists = fo.generate(exported, X)
    assert dists.meta["parity"]["passed"]
    assert dists.meta["parity"]["measured"] == "at export"
    assert fo.generate(net, X).meta["parity"]["measured"] == "in this run"


def test_ids_that_a_model_takes_as_input_stay_input():
    class Embedded(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(10, 3)

        def forward(self, ids):
            return self.table(ids) * 3

    dists = fo.generate(Embedded(), {"ids": np.arange(100) % 10, "labels": np.arange(100) % 3})
    assert dists.ids.tolist() == list(range(100))
    assert dists.labels is not None
