"""Files that others exported with ZipMap, and labels that are numbers of classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn_rows import classes, grid

import fo_onnx as fo
from fo_onnx.errors import DataError


def theirs(model: Any, path: Path, **options: Any) -> Path:
    proto = convert_sklearn(
        model, initial_types=[("X", FloatTensorType([None, 5]))], target_opset={"": 18, "ai.onnx.ml": 3}, **options
    )
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize("make", [LogisticRegression, lambda: RandomForestClassifier(5)])
@pytest.mark.parametrize("names", [["no", "maybe", "yes"], [0, 1, 2], [3, 5, 9]])
def test_a_file_with_a_map(make: Any, names: list[Any], tmp_path: Path) -> None:
    x = grid(300)
    y = np.array(names)[classes(x)]
    model = make().fit(x, y)
    path = theirs(model, tmp_path / "theirs.onnx")

    dists = fo.generate(path, x.astype(np.float32), progress=False)

    np.testing.assert_allclose(dists.probs, model.predict_proba(x), atol=1e-5)
    assert dists.class_names == (None if names[0] == 0 else tuple(sorted(map(str, names))))


def test_a_file_without_a_map(tmp_path: Path) -> None:
    x = grid(300)
    model = LogisticRegression().fit(x, classes(x))
    path = theirs(model, tmp_path / "theirs.onnx", options={"zipmap": False})
    dists = fo.generate(path, x.astype(np.float32), progress=False)
    np.testing.assert_allclose(dists.probs, model.predict_proba(x), atol=1e-5)


def test_labels_that_are_numbers_of_classes(tmp_path: Path) -> None:
    x = grid(300)
    y = np.array([1, 2, 3])[classes(x)]
    model = LogisticRegression().fit(x, y)

    dists = fo.generate(model, (x, y), progress=False)
    from_file = fo.generate(fo.export(model, x, tmp_path / "m.onnx"), x, labels=y, progress=False)

    for one in (dists, from_file):
        assert one.labels.tolist() == (y - 1).tolist()
    with pytest.raises(DataError, match="its label 7 is no class; the model's classes are called '1', '2', '3'"):
        fo.generate(model, (x, np.where(y == 3, 7, y)), progress=False)


def test_data_without_rows_give_none():
    x = np.random.default_rng(0).random((30, 4))
    model = LogisticRegression().fit(x, np.arange(30) % 3)
    assert len(fo.generate(model, x[:0])) == 0
    assert len(fo.generate(model, x, limit=0)) == 0
