"""What a Parquet file may ask for, and what its columns may hold."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fo_onnx.distributions import Distributions
from fo_onnx.distributions.ids import shorten_list
from fo_onnx.errors import StoreError
from fo_onnx.store import load, save
from fo_onnx.store.formats import parquet


@pytest.mark.parametrize(("rows", "classes", "logits"), [(40_000, 1000, False), (1600, 10_000, True)])
def test_rows_that_are_all_alike_take_next_to_no_room_and_open(rows, classes, logits, tmp_path):
    probs = np.zeros((rows, classes), np.float32)
    probs[:, 0] = 1
    path = save(Distributions(probs, logits=probs if logits else None), tmp_path / "d.parquet")
    assert path.stat().st_size < probs.nbytes / 900
    assert load(path)[rows - 1][0] == 1


def test_a_row_group_beyond_the_limit_is_refused_until_the_limit_is_raised(tmp_path, monkeypatch):
    path = save(Distributions(np.full((16_000, 100), 0.01, np.float32)), tmp_path / "d.parquet")
    monkeypatch.setattr(parquet, "FREE_GROUP_BYTES", 10**6)
    monkeypatch.setattr("fo_onnx.guards.limits.FREE_BYTES", 10**6)
    monkeypatch.setenv("FO_ONNX_MAX_UNFOLD", "1")
    with pytest.raises(
        StoreError, match=r"d\.parquet: row group 0 of a file of \d+ bytes would unfold to .*FO_ONNX_MAX_UNFOLD"
    ):
        load(path)
    monkeypatch.setenv("FO_ONNX_MAX_UNFOLD", "100000")
    assert len(load(path)) == 16_000


def test_a_footer_beyond_the_limit_is_refused_until_the_limit_is_raised(tmp_path, monkeypatch):
    path = save(Distributions([[0.5, 0.5]]), tmp_path / "d.parquet")
    monkeypatch.setenv("FO_ONNX_MAX_HEADER_BYTES", "100")
    with pytest.raises(StoreError, match="a footer of .* raise the limit: FO_ONNX_MAX_HEADER_BYTES"):
        load(path)
    monkeypatch.setenv("FO_ONNX_MAX_HEADER_BYTES", "10000")
    assert len(load(path)) == 1


def test_labels_that_are_no_class_are_refused_and_never_wrap_around(tmp_path):
    meta = b'{"schema":1,"data":{"id_kind":"int"},"model":{"class_names":["a","b"]}}'
    probs = pa.array([[0.5, 0.5]] * 3, pa.list_(pa.float32(), 2))
    table = pa.table({"id": [0, 1, 2], "probs": probs, "label": pa.array([0, -1, 1])})
    path = tmp_path / "d.parquet"
    pq.write_table(table.replace_schema_metadata({"fo_onnx": meta}), path)
    for d in (load(path), load(path).align(["b", "a"])):
        for read in (lambda d=d: d.labels, lambda d=d: d.metrics()):
            with pytest.raises(StoreError, match=r"labels that are no class, classes are 0 … 1: -1"):
                read()


def test_long_ids_are_cut_in_messages():
    assert len(shorten_list(["x" * 10**6, "b"])) < 200
    assert shorten_list([1, "b"]) == "1, 'b'"


def test_an_npz_that_unfolds_to_hundreds_of_times_its_size_is_refused(tmp_path, monkeypatch):
    """It is read whole, so that less than of other files is enough to fill the memory."""
    monkeypatch.setattr("fo_onnx.guards.limits.FREE_BYTES", 10**6)
    probs = np.zeros((50_000, 300), np.float32)
    probs[:, 0] = 1
    probs[:20] = np.random.default_rng(0).dirichlet(np.ones(300), 20)
    dists = Distributions(probs)
    save(dists, tmp_path / "whole.npz")
    with np.load(tmp_path / "whole.npz") as arrays:
        np.savez_compressed(tmp_path / "deflated.npz", **arrays)
    assert 100 < (tmp_path / "whole.npz").stat().st_size / (tmp_path / "deflated.npz").stat().st_size < 1000
    assert len(load(tmp_path / "whole.npz")) == 50_000
    with pytest.raises(StoreError, match="more than 100 times .*FO_ONNX_MAX_UNFOLD=.*Large results belong in Parquet"):
        load(tmp_path / "deflated.npz")
    monkeypatch.setenv("FO_ONNX_MAX_UNFOLD", "1000")
    assert len(load(tmp_path / "deflated.npz")) == 50_000
