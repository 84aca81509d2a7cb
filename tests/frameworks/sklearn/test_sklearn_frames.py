"""Data frames with columns of numbers and of text, by name, into pipelines that take columns apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

import fo_onnx as fo
from fo_onnx.errors import DataError, FallbackWarning, ModelError

CITIES = np.array(["rom", "oslo", "bern"])
INPUTS = ["age", "rooms", "city"]


def table(rows: int, seed: int = 0, *, missing: bool = False) -> pa.Table:
    rng = np.random.default_rng(seed)
    age, rooms, city = rng.integers(18, 80, rows) / 3, rng.integers(1, 6, rows), CITIES[rng.integers(0, 3, rows)]
    sold = np.where(age * rooms > 40, np.where(city == "rom", "yes", "maybe"), "no")
    if missing:
        age[::7] = np.nan
    return pa.table({"age": age, "rooms": rooms, "city": city.tolist(), "label": sold.tolist()})


def split(last: Any) -> Any:
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "rooms"]),
            ("words", OneHotEncoder(handle_unknown="ignore"), ["city"]),
            ("counts", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["rooms"]),
        ]
    )
    data = table(400)
    return make_pipeline(columns, last).fit(data.select(INPUTS), data["label"].to_pylist())


@pytest.mark.parametrize("last", [LogisticRegression(), RandomForestClassifier(10, random_state=0)])
def test_columns_by_name(last: Any, tmp_path: Path) -> None:
    model, data = split(last), table(2000, 5, missing=True)

    dists = fo.generate(model, data, progress=False)
    file = fo.export(model, data, tmp_path / "m.onnx")
    from_file = fo.generate(file, data, progress=False)

    assert dists.meta["runner"]["kind"] == "onnx"
    for one in (dists, from_file):
        np.testing.assert_allclose(one.probs, model.predict_proba(data.select(INPUTS)), atol=1e-6)
        assert np.asarray(one.class_names)[one.labels].tolist() == data["label"].to_pylist()
    assert [(i.name, i.dtype) for i in file.spec.inputs] == [("age", "float64"), ("rooms", "int64"), ("city", "str")]


def test_columns_in_another_order_and_labels_beside() -> None:
    model, data = split(LogisticRegression()), table(200, 5)

    dists = fo.generate(model, (data.select(["city", "rooms", "age"]), data["label"].to_pylist()), progress=False)

    np.testing.assert_allclose(dists.probs, model.predict_proba(data.select(INPUTS)), atol=1e-6)
    assert np.asarray(dists.class_names)[dists.labels].tolist() == data["label"].to_pylist()


def test_words_that_were_not_seen() -> None:
    model, data = split(LogisticRegression()), table(50, 5)
    data = data.set_column(2, "city", pa.array(["paris", *data["city"].to_pylist()[1:]]))
    dists = fo.generate(model, data, progress=False, runner="onnx")
    np.testing.assert_allclose(dists.probs, model.predict_proba(data.select(INPUTS)), atol=1e-6)


def test_a_column_that_is_missing() -> None:
    with pytest.raises(DataError, match="columns that the data frame has not: 'city'; it has 'age', 'rooms', 'label'"):
        fo.generate(split(LogisticRegression()), table(20).drop_columns(["city"]), progress=False)


def test_missing_text_runs_natively() -> None:
    data = table(300)
    words = pa.array([None, *data["city"].to_pylist()[1:]])
    data = data.set_column(2, "city", words)
    encoder = ColumnTransformer([("c", OneHotEncoder(), ["city"])], remainder="drop")
    model = make_pipeline(encoder, LogisticRegression()).fit(data.select(INPUTS), data["label"].to_pylist())

    with pytest.warns(FallbackWarning, match="ONNX's text has no missing"):
        dists = fo.generate(model, data, progress=False)

    assert dists.meta["runner"]["kind"] == "native"
    assert len(dists) == 300


def test_numbers_only_by_name_from_parquet(tmp_path: Path) -> None:
    data = table(500)
    model = RandomForestClassifier(8, random_state=0).fit(data.select(["rooms", "age"]), data["label"].to_pylist())
    pq.write_table(data, tmp_path / "rows.parquet")

    dists = fo.generate(model, tmp_path / "rows.parquet", progress=False)

    assert dists.meta["runner"]["kind"] == "onnx"
    np.testing.assert_allclose(dists.probs, model.predict_proba(data.select(["rooms", "age"])), atol=1e-6)
    assert np.asarray(dists.class_names)[dists.labels].tolist() == data["label"].to_pylist()


def test_a_matrix_is_taken_in_the_order_of_the_fit() -> None:
    data = table(300)
    names = ["rooms", "age"]
    model = RandomForestClassifier(8, random_state=0).fit(data.select(names), data["label"].to_pylist())
    x = np.stack([data[n].to_numpy() for n in names], axis=1)

    dists = fo.generate(model, x, labels=data["label"].to_pylist(), progress=False)

    np.testing.assert_allclose(dists.probs, model.predict_proba(data.select(names)), atol=1e-6)


def test_a_matrix_and_numbered_labels_say_what_to_do() -> None:
    data = table(300)
    model = RandomForestClassifier(3).fit(data.select(["rooms", "age"]), [0, 1] * 150)
    with pytest.raises(ModelError, match="takes one matrix .* or the columns 'rooms', 'age'.*give it with labels="):
        fo.generate(model, (np.zeros((4, 2)), np.zeros(4, int)), progress=False)


def test_a_frame_of_numbers_for_another_model() -> None:
    def model(x: np.ndarray) -> np.ndarray:
        return x @ np.array([[1.0, 2.0], [0.5, 1.0]])

    data = table(30).select(["age", "rooms"])
    dists = fo.generate(model, data, progress=False)
    assert dists.probs.shape == (30, 2)


def test_text_in_a_matrix() -> None:
    words = CITIES[np.random.default_rng(0).integers(0, 3, (300, 2))]
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(words.astype(object), words[:, 0] == "rom")
    data = pa.table({"a": words[:, 0].tolist(), "b": words[:, 1].tolist()})
    named = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(data, words[:, 0] == "rom")

    dists = fo.generate(named, data, progress=False)

    assert dists.meta["runner"]["kind"] == "onnx"
    np.testing.assert_allclose(dists.probs, model.predict_proba(words.astype(object)), atol=1e-6)


@pytest.mark.parametrize("names", [["X", "0"], ["X"], ["a.b", "c d"], ["predict_proba", "predict_proba_"]])
def test_columns_with_odd_names(names: list[str]) -> None:
    data = table(300).select(["age", "rooms"][: len(names)]).rename_columns(names)
    model = RandomForestClassifier(5, random_state=0).fit(data, table(300)["label"].to_pylist())

    dists = fo.generate(model, data, progress=False)

    assert dists.meta["runner"]["kind"] == "onnx"
    np.testing.assert_allclose(dists.probs, model.predict_proba(data), atol=1e-6)


@pytest.mark.parametrize("names", [["age (years)", "rooms/n", "city.name"], ["age", "predict_proba", "city"]])
def test_columns_with_odd_names_in_a_column_transformer(names: list[str]) -> None:
    data = table(300).select(INPUTS).rename_columns(names)
    columns = ColumnTransformer([("n", StandardScaler(), names[:2]), ("c", OneHotEncoder(), names[2:])])
    model = make_pipeline(columns, LogisticRegression()).fit(data, table(300)["label"].to_pylist())

    dists = fo.generate(model, data, progress=False, runner="onnx")

    np.testing.assert_allclose(dists.probs, model.predict_proba(data), atol=1e-6)


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_pandas_and_polars_frames(package: str) -> None:
    library = pytest.importorskip(package)
    model, data = split(LogisticRegression()), table(100, 5)
    frame = data.to_pandas() if package == "pandas" else library.from_arrow(data)
    expected = model.predict_proba(data.select(INPUTS))
    for rows in (data, frame):
        dists = fo.generate(model, rows, progress=False)
        np.testing.assert_allclose(dists.probs, expected, atol=1e-6)


def test_polars_categories_nulls_and_functions() -> None:
    pl = pytest.importorskip("polars")
    rng = np.random.default_rng(0)
    words = rng.choice(["a", "b", "c"], 300).tolist()
    frame = pl.DataFrame({"n": rng.normal(size=300), "c": words})
    columns = ColumnTransformer([("n", StandardScaler(), ["n"]), ("c", OneHotEncoder(handle_unknown="ignore"), ["c"])])
    model = make_pipeline(columns, LogisticRegression()).fit(frame, rng.integers(0, 2, 300))
    expected = model.predict_proba(frame)
    for kind in (pl.String, pl.Categorical, pl.Enum(["a", "b", "c"])):
        dists = fo.generate(model, frame.with_columns(pl.col("c").cast(kind)), progress=False)
        np.testing.assert_allclose(dists.probs, expected, atol=1e-6, err_msg=str(kind))
    # A null among numbers is NaN, which this model refuses.
    nulls = frame.with_columns(pl.when(pl.col("n") > 0).then(pl.col("n")).alias("n"))
    dists = fo.generate(model, nulls, on_error="skip", progress=False)
    np.testing.assert_array_equal(dists.ids, np.flatnonzero(frame["n"].to_numpy() > 0))
    np.testing.assert_allclose(dists.probs, expected[dists.ids], atol=1e-6)
    # Functions see the columns by name, and what was chosen of them.
    numbers = LogisticRegression().fit(frame[["n"]].to_numpy(), np.array(words) == "a")
    for arguments in ({"input_getter": lambda row: np.array([row["n"]])}, {"transform": lambda row: row}):
        dists = fo.generate(numbers, frame, progress=False, **arguments)
        np.testing.assert_allclose(dists.probs, numbers.predict_proba(frame[["n"]].to_numpy()), atol=1e-6)
    with pytest.raises(fo.DataError, match=r"a polars LazyFrame .*\.collect\(\)"):
        fo.generate(numbers, frame.lazy(), progress=False)
