"""Classifiers of text: what cuts it into words, what codes it, and functions over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import fo_onnx as fo

TEXTS = ["a good film", "bad film", "very good", "awful bad", "a fine thing", "bad thing"] * 10
LABELS = [1, 0, 1, 0, 1, 0] * 10


class CountsLetters(BaseEstimator, TransformerMixin):
    """Somebody's own transformer over a list of texts."""

    def fit(self, texts: Any, y: Any = None) -> CountsLetters:
        return self

    def transform(self, texts: Any) -> Any:
        return np.array([[text.count(letter) for letter in "abdgo"] for text in texts], float)


def lower(texts: Any) -> list[str]:
    return [text.lower() for text in texts]


PIPELINES = {
    "tf-idf": make_pipeline(TfidfVectorizer(), LogisticRegression()),
    "hashes": make_pipeline(HashingVectorizer(n_features=64), StandardScaler(with_mean=False), LogisticRegression()),
    "union": make_pipeline(
        FeatureUnion([("words", CountVectorizer()), ("tf", TfidfVectorizer())]), LogisticRegression()
    ),
    "a function first": make_pipeline(FunctionTransformer(lower), CountVectorizer(), LogisticRegression()),
    "somebody's own": make_pipeline(CountsLetters(), LogisticRegression()),
    "search": GridSearchCV(
        make_pipeline(CountVectorizer(), LogisticRegression()), {"logisticregression__C": [1, 2]}, cv=2
    ),
    "calibrated": CalibratedClassifierCV(make_pipeline(CountVectorizer(), LogisticRegression()), cv=2),
}


@pytest.fixture(scope="module", params=PIPELINES)
def pipeline(request: pytest.FixtureRequest) -> Any:
    return PIPELINES[request.param].fit(TEXTS, LABELS)


def forms(folder: Path) -> dict[str, Any]:
    frame = pd.DataFrame({"text": TEXTS})
    frame.to_parquet(folder / "texts.parquet")
    return {
        "list": TEXTS,
        "array": np.array(TEXTS),
        "objects": np.array(TEXTS, object),
        "list and labels": (TEXTS, LABELS),
        "pairs": list(zip(TEXTS, LABELS, strict=True)),
        "frame": frame,
        "series": frame["text"],
        "parquet": folder / "texts.parquet",
        "stream": ({"text": text} for text in TEXTS),
    }


def test_every_form_of_texts(pipeline: Any, tmp_path: Path) -> None:
    expected = pipeline.predict_proba(TEXTS)
    for form, data in forms(tmp_path).items():
        dists = fo.generate(pipeline, data, runner="native", progress=False)
        np.testing.assert_allclose(dists.probs, expected, atol=1e-6, err_msg=form)
        assert (dists.labels is not None) == (form in ("list and labels", "pairs")), form


def test_a_function_over_texts(tmp_path: Path) -> None:
    net = PIPELINES["tf-idf"].fit(TEXTS, LABELS)

    def predict(texts: Any) -> Any:
        assert texts.ndim == 1
        return net.predict_proba(list(texts))

    data = forms(tmp_path)
    for form in ("list", "array", "objects", "list and labels", "frame", "series", "parquet"):
        dists = fo.generate(predict, data[form], progress=False)
        np.testing.assert_allclose(dists.probs, net.predict_proba(TEXTS), atol=1e-6, err_msg=form)


def test_a_series_keeps_its_index() -> None:
    net = PIPELINES["tf-idf"].fit(TEXTS, LABELS)
    series = pd.Series(TEXTS).sample(frac=1, random_state=0)
    dists = fo.generate(net, series, runner="native", progress=False)
    assert dists.ids.tolist() == series.index.tolist()
    np.testing.assert_allclose(dists.probs, net.predict_proba(series), atol=1e-6)


@pytest.mark.parametrize("missing", [None, np.nan])
def test_a_missing_text_is_that_rows_fault(missing: Any) -> None:
    net = PIPELINES["tf-idf"].fit(TEXTS, LABELS)
    texts = [*TEXTS[:7], missing, *TEXTS[8:]]
    for data in (texts, np.array(texts, object), {"text": np.array(texts, object)}, pd.DataFrame({"text": texts})):
        dists = fo.generate(net, data, runner="native", on_error="skip", progress=False)
        assert dists.ids.tolist() == [i for i in range(len(TEXTS)) if i != 7]


def test_text_in_a_matrix_is_coded() -> None:
    rows = np.array([text.split()[:2] for text in TEXTS], object)
    net = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(rows, LABELS)
    with pytest.warns(fo.FallbackWarning, match=r"the dtype object, in which text may be missing.*astype\(str\)"):
        fo.generate(net, rows, progress=False)
    for data, runner in ((rows, "native"), (rows.astype(str), "onnx")):
        dists = fo.generate(net, data, runner=runner, progress=False)
        np.testing.assert_allclose(dists.probs, net.predict_proba(rows), atol=1e-6)


def test_text_for_a_model_of_numbers_is_refused() -> None:
    net = LogisticRegression().fit(np.eye(2), [0, 1])
    with pytest.raises(fo.DataError, match="numbers were expected"):
        fo.generate(net, TEXTS, progress=False)


def test_a_function_that_chooses_sees_the_columns_of_a_frame(tmp_path: Path) -> None:
    net = PIPELINES["tf-idf"].fit(TEXTS, LABELS)
    frame = pd.DataFrame({"title": ["t"] * len(TEXTS), "text": TEXTS})
    frame.to_parquet(tmp_path / "two.parquet")
    for data in (frame, tmp_path / "two.parquet"):
        with pytest.raises(fo.DataError, match=r"several columns of text .* input_getter=lambda row: row\['title'\]"):
            fo.generate(net, data, progress=False)
        dists = fo.generate(net, data, input_getter=lambda row: row["text"], runner="native", progress=False)
        np.testing.assert_allclose(dists.probs, net.predict_proba(TEXTS), atol=1e-6)


MIXED: dict[str, list[list[Any]]] = {
    "a number": [["red", 1], ["green", 2], ["blue", 3]],
    "a fraction and a flag": [["red", 1.5, True], ["green", 2.0, False], ["blue", 0.5, True]],
    "NaN": [["red", "s"], [float("nan"), "m"], ["blue", "l"]],
    "None": [["red", None], [None, "m"], ["blue", "l"]],
    "a row without text": [["red", 1], [None, 2], ["blue", 3]],
}


@pytest.mark.parametrize("kind", MIXED)
def test_values_beside_text_stay_what_they_are(kind: str) -> None:
    rows = MIXED[kind] * 20
    matrix = np.array(rows, object)
    net = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(matrix, LABELS)
    expected = net.predict_proba(matrix)
    for data in (rows, iter(rows), list(zip(rows, LABELS, strict=True)), (rows, LABELS), matrix, {"x": rows}):
        dists = fo.generate(net, data, runner="native", progress=False)
        np.testing.assert_allclose(dists.probs, expected, atol=1e-6)
    seen: list[Any] = []

    def predict(batch: Any) -> Any:
        seen.extend(batch.tolist())
        return np.full((len(batch), 2), 0.5)

    fo.generate(predict, rows, progress=False)
    assert [[type(v) for v in row] for row in seen[: len(rows)]] == [[type(v) for v in row] for row in rows]


def test_missing_text_in_rows_by_name() -> None:
    frame = pd.DataFrame({"c": pd.Series(["a", "b", None] * 20, dtype=object), "n": np.arange(60.0)})
    columns = ColumnTransformer([("c", OneHotEncoder(), ["c"]), ("n", "passthrough", ["n"])])
    net = make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(frame, LABELS)
    rows = frame.to_dict("records")
    assert any(row["c"] is None for row in rows)
    for data in (rows, {"c": frame["c"].tolist(), "n": frame["n"].tolist()}, frame):
        dists = fo.generate(net, data, runner="native", progress=False)
        np.testing.assert_allclose(dists.probs, net.predict_proba(frame), atol=1e-6)
