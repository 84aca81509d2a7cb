"""Labels of classifiers that name their classes: by name, whatever form the rows come in, and files that others exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.linear_model import LogisticRegression
from sklearn_rows import classes, grid

import fo_onnx as fo
from fo_onnx.errors import DataError

X = grid(300).astype(np.float32)
CLASSES: dict[str, list[Any]] = {
    "words": ["no", "maybe", "yes"],
    "digits as text": ["10", "2", "01"],
    "numbers": [7, 0, 2],
    "negative": [1, -1, 0],
}


def fitted(names: list[Any]) -> tuple[LogisticRegression, np.ndarray]:
    y = np.array(names)[classes(X)]
    return LogisticRegression().fit(X, y), y


def pairs_in_a_loader(y: np.ndarray) -> Any:
    torch = pytest.importorskip("torch")
    return torch.utils.data.DataLoader(list(zip(X, y.tolist(), strict=True)), batch_size=40)


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "arrays": lambda y: (X, y),
    "pairs": lambda y: list(zip(X, y, strict=True)),
    "a generator": lambda y: zip(X, y.tolist(), strict=True),
    "torch's loader": pairs_in_a_loader,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", CLASSES)
def test_every_form_and_kind(kind: str, form: str) -> None:
    model, y = fitted(CLASSES[kind])
    dists = fo.generate(model, FORMS[form](y), progress=False, runner="native")
    assert dists.metrics()["accuracy"] == model.score(X, y)


@pytest.mark.parametrize("kind", CLASSES)
def test_files_of_ours_and_of_others(kind: str, tmp_path: Path) -> None:
    model, y = fitted(CLASSES[kind])
    ours = fo.export(model, X, tmp_path / "ours.onnx")
    theirs = tmp_path / "theirs.onnx"
    proto = convert_sklearn(
        model, initial_types=[("X", FloatTensorType([None, 5]))], target_opset={"": 18, "ai.onnx.ml": 3}
    )
    theirs.write_bytes(proto.SerializeToString())
    for file in (ours, theirs):
        for data in ((X, y), list(zip(X, y.tolist(), strict=True))):
            assert fo.generate(file, data, progress=False).metrics()["accuracy"] == model.score(X, y)
        if kind != "words":
            continue
        with pytest.raises(
            DataError, match=r"an integer, and \w+ was trained on classes that are called 'maybe', 'no', 'yes'"
        ):
            fo.generate(file, (X, classes(X)), progress=False)


def test_integers_for_a_model_of_words_are_refused_unless_their_order_is_stated() -> None:
    model, y = fitted(CLASSES["words"])
    columns = np.searchsorted(model.classes_, y)
    for data in ((X, columns), list(zip(X, columns, strict=True))):
        with pytest.raises(DataError, match=r"Give the labels by name; or, .*class_names=; or .*labels=False"):
            fo.generate(model, data, progress=False)
        stated = fo.generate(model, data, class_names=model.classes_.tolist(), progress=False)
        assert stated.metrics()["accuracy"] == model.score(X, y)
        assert fo.generate(model, data, labels=False, progress=False).labels is None


def test_truth_values() -> None:
    y = classes(X) == 1
    model = LogisticRegression().fit(X, y)
    for labels in (y, y.astype(int), y.astype(str)):
        assert fo.generate(model, (X, labels), progress=False).metrics()["accuracy"] == model.score(X, y)
