"""A data frame and the Parquet file that pandas writes of it give the same rows, ids and labels."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import fo_onnx as fo
from fo_onnx.contracts.options import DataOptions
from fo_onnx.contracts.source import Source
from fo_onnx.contracts.spec import InputSignature
from fo_onnx.models import plugins
from fo_onnx.sources import open_source
from fo_onnx.sources.categories import categories_of

pd = pytest.importorskip("pandas")
ROWS = 60


def frame(**columns: Any) -> Any:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"a": rng.normal(size=ROWS), "b": rng.integers(0, 5, ROWS), **columns})


def opened(data: Any, *names: str, **options: Any) -> Source:
    signature = InputSignature(names or ("X",))
    return open_source(data, DataOptions(signature=signature, **options), tuple(plugins.source_factories()))


def forms(data: Any, folder: Path) -> dict[str, Any]:
    data.to_parquet(folder / "rows.parquet", row_group_size=7)
    return {
        "frame": data,
        "file": folder / "rows.parquet",
        "table": pa.Table.from_pandas(data),
        "read by Arrow": pq.read_table(folder / "rows.parquet"),
    }


INDICES: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "default": (lambda d: d, list(range(ROWS))),
    "sampled": (lambda d: d.sample(frac=1, random_state=0), None),
    "selected": (lambda d: d[d.a > 0], None),
    "a part": (lambda d: d[10:40], None),
    "every third": (lambda d: d[::3], None),
    "text": (lambda d: d.set_index(pd.Index([f"row-{i}" for i in range(ROWS)], name="key")), None),
    "twice the same": (lambda d: pd.concat([d[:30], d[:30]]), list(range(ROWS))),
    "fractions": (lambda d: d.set_index(np.arange(ROWS) / 2), list(range(ROWS))),
    "dates": (lambda d: d.set_index(pd.date_range("2020-01-01", periods=ROWS)), list(range(ROWS))),
    "two levels": (lambda d: d.set_index([np.arange(ROWS), np.arange(ROWS)]), list(range(ROWS))),
}


@pytest.mark.parametrize("kind", INDICES)
@pytest.mark.parametrize("names", [(), ("b", "a")])
def test_the_index_gives_ids_and_no_feature(kind: str, names: tuple[str, ...], tmp_path: Path) -> None:
    make, ids = INDICES[kind]
    data = make(frame())
    for form, rows in forms(data, tmp_path).items():
        source = opened(rows, *names)
        (batch,) = source.batches(1000)
        assert batch.ids.tolist() == (data.index.tolist() if ids is None else ids), form
        if names:
            assert {n: a.tolist() for n, a in batch.inputs.items()} == {n: data[n].tolist() for n in names}, form
        else:
            np.testing.assert_array_equal(batch.inputs["0"], data.to_numpy())


def test_a_function_gets_rows_without_the_index(tmp_path: Path) -> None:
    data = frame().sample(frac=1, random_state=0)
    for form in ("frame", "table"):
        (batch,) = opened(forms(data, tmp_path)[form], transform=np.negative).batches(1000)
        np.testing.assert_array_equal(batch.inputs["0"], -data.to_numpy())


def test_labels_in_another_order_of_the_index_are_refused() -> None:
    data = frame()
    labels = pd.Series(np.where(data["a"] > 0, "p", "n"))
    model = LogisticRegression().fit(data, labels)
    shuffled = data.sample(frac=1, random_state=0)
    for rows, arguments in ((shuffled, {"labels": labels}), ((shuffled, labels), {})):
        with pytest.raises(fo.DataError, match=r"index of the data in another order.*labels.loc\[data.index\]"):
            fo.generate(model, rows, progress=False, **arguments)
    with pytest.raises(fo.DataError, match="in another order or shifted"):
        fo.generate(model, data.iloc[:30], labels=labels.iloc[10:40], progress=False)
    by_index = fo.generate(model, shuffled, labels=labels.loc[shuffled.index], progress=False)
    by_position = fo.generate(model, shuffled, labels=labels.loc[shuffled.index].to_numpy(), progress=False)
    assert by_index.metrics()["accuracy"] == by_position.metrics()["accuracy"] == model.score(data, labels)
    # Counted labels of a part of the data are those of its rows in order.
    part = shuffled.iloc[:30]
    counted = fo.generate(model, part, labels=labels.loc[part.index].reset_index(drop=True), progress=False)
    assert counted.metrics()["accuracy"] == model.score(part, labels.loc[part.index])
    # Labels with an index of their own are matched by position.
    other = fo.generate(model, shuffled, labels=pd.Series(labels.loc[shuffled.index].to_numpy(), index=range(100, 160)))
    assert other.metrics()["accuracy"] == model.score(data, labels)


def test_ids_that_are_given_or_a_column_come_before_the_index(tmp_path: Path) -> None:
    data = frame(id=[f"id-{i}" for i in range(ROWS)]).sample(frac=1, random_state=0)
    for rows in forms(data, tmp_path).values():
        assert opened(rows).annotations(0, ROWS)[0].tolist() == data["id"].tolist()
        assert opened(rows, ids=range(100, 160)).annotations(0, ROWS)[0].tolist() == list(range(100, 160))
        (batch,) = opened(rows).batches(1000)
        assert batch.inputs["0"].shape == (ROWS, 2)


def test_an_index_that_the_model_names_is_an_input(tmp_path: Path) -> None:
    data = frame().set_index("b")
    data.to_parquet(tmp_path / "rows.parquet")
    (batch,) = opened(tmp_path / "rows.parquet", "a", "b").batches(1000)
    assert batch.inputs["b"].tolist() == data.index.tolist()
    assert batch.ids.tolist() == list(range(ROWS))


def a_range(start: Any, stop: Any, step: Any) -> bytes:
    return json.dumps({"index_columns": [{"kind": "range", "start": start, "stop": stop, "step": step}]}).encode()


OTHERS = [
    b"",
    b"[]",
    b'{"index_columns": 3}',
    b'{"index_columns": [{"kind": "range"}]}',
    a_range(0, 2, 0),
    a_range(0, 2**70, 1),
]


@pytest.mark.parametrize("content", [*OTHERS, a_range(0, "2", 1), a_range(5, 8, 1)])
def test_metadata_of_another_program(content: bytes, tmp_path: Path) -> None:
    table = pa.table({"a": [1.0, 2.0], "b": [3.0, 4.0]}).replace_schema_metadata({b"pandas": content})
    pq.write_table(table, tmp_path / "rows.parquet")
    (batch,) = opened(tmp_path / "rows.parquet").batches(10)
    assert (batch.ids.tolist(), batch.inputs["0"].tolist()) == ([0, 1], [[1, 3], [2, 4]])


COLUMNS: dict[str, Any] = {
    "text": lambda: np.resize(["u", "vv", "www"], ROWS).tolist(),
    "missing text": lambda: np.resize(np.array(["u", None, "www"], dtype=object), ROWS).tolist(),
    "NaN": lambda: np.resize([1.5, np.nan], ROWS),
    "Int64": lambda: pd.array(np.resize(np.array([1, None, 3], dtype=object), ROWS), dtype="Int64"),
    "boolean": lambda: pd.array(np.resize(np.array([True, None, False], dtype=object), ROWS), dtype="boolean"),
    "categories": lambda: pd.Categorical(np.resize(["u", "v"], ROWS), categories=["w", "v", "u"]),
    "ordered categories": lambda: pd.Categorical(np.resize([20, 10], ROWS), categories=[30, 20, 10], ordered=True),
    "missing categories": lambda: pd.Categorical(np.resize(["u", "x"], ROWS), categories=["w", "v", "u"]),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_that_the_model_names(kind: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas warns of values that are no category
        data = frame(c=COLUMNS[kind]())
    expected: Any = None
    for form, rows in forms(data, tmp_path).items():
        if kind == "ordered categories" and form in ("file", "read by Arrow"):
            continue  # Arrow writes categories of numbers as numbers, and pandas too reads them so
        (batch,) = opened(rows, "a", "b", "c").batches(1000)
        column = batch.inputs["c"]
        if expected is None:
            expected = column
            assert (categories_of(column) is not None) == ("categories" in kind)
        assert column.dtype == expected.dtype, form
        assert categories_of(column) == categories_of(expected), form
        # NaN is unequal to itself, and None is another thing.
        assert list(map(repr, column.tolist())) == list(map(repr, expected.tolist())), form


def test_an_encoder_sees_missing_text_as_it_did_in_the_fit(tmp_path: Path) -> None:
    words = np.resize(np.array(["u", None, "w"], dtype=object), ROWS)
    data = frame(c=words.tolist())
    columns = ColumnTransformer([("c", OneHotEncoder(handle_unknown="ignore"), ["c"])], remainder="passthrough")
    model = make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(data, words == None)  # noqa: E711
    data.to_parquet(tmp_path / "rows.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fo.errors.FallbackWarning)
        for rows in (data, tmp_path / "rows.parquet"):
            probs = fo.generate(model, rows, progress=False).probs
            np.testing.assert_allclose(probs, model.predict_proba(data), atol=1e-6)


def test_missing_values_are_the_estimators_to_take_or_refuse(tmp_path: Path) -> None:
    data = frame().assign(label=np.arange(ROWS) % 2)
    data.loc[3, "a"] = np.nan
    x, y = data[["a", "b"]], data["label"]
    data.to_parquet(tmp_path / "rows.parquet")
    takes = HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=2).fit(x, y)
    refuses = LogisticRegression().fit(x.fillna(0), y)
    for rows in (data, tmp_path / "rows.parquet"):
        probs = fo.generate(takes, rows, progress=False).probs
        np.testing.assert_allclose(probs, takes.predict_proba(x), atol=1e-6)
        left = fo.generate(refuses, rows, on_error="skip", progress=False)
        assert left.ids.tolist() == [i for i in range(ROWS) if i != 3]
        assert left.meta["rows"] == {"written": ROWS - 1, "skipped": 1, "quarantined": 0}


def boosters() -> dict[str, Any]:
    lightgbm, xgboost = pytest.importorskip("lightgbm"), pytest.importorskip("xgboost")
    return {
        "LightGBM": lightgbm.LGBMClassifier(n_estimators=5, min_child_samples=2, verbose=-1, n_jobs=1),
        "XGBoost": xgboost.XGBClassifier(n_estimators=5, enable_categorical=True, n_jobs=1),
    }


@pytest.mark.parametrize("name", ["LightGBM", "XGBoost"])
@pytest.mark.parametrize("values", [["u", "v", "w"], [10, 20, 30]])
def test_categories_reach_boosters(name: str, values: list[Any], tmp_path: Path) -> None:
    model = boosters()[name]
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"a": rng.normal(size=900), "c": pd.Categorical(rng.choice(values, 900))})
    data.loc[5, "c"] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(data, (data["c"].cat.codes + (data["a"] > 0)) % 3)
        # Rows of which some categories do not occur, in another order.
        rows = data[data["c"] != values[0]].iloc[::-1]
        rows.to_parquet(tmp_path / "rows.parquet")
        # Arrow writes categories of numbers as numbers.
        for form in (rows, tmp_path / "rows.parquet") if values[0] == "u" else (rows,):
            dists = fo.generate(model, form, progress=False)
            np.testing.assert_allclose(dists.probs, model.predict_proba(rows), atol=1e-6)
            assert dists.ids.tolist() == rows.index.tolist()


def test_columns_of_other_names_are_not_taken_by_position(tmp_path: Path) -> None:
    data, y = frame(), np.arange(ROWS) % 2
    model = LogisticRegression().fit(data, y)
    for rows in forms(data.rename(columns={"a": "b", "b": "a"}), tmp_path).values():
        probs = fo.generate(model, rows, progress=False).probs
        np.testing.assert_allclose(
            probs, model.predict_proba(data.rename(columns={"a": "b", "b": "a"})[["a", "b"]]), atol=1e-6
        )
    for rows in forms(data.rename(columns={"a": "p", "b": "q"}), tmp_path).values():
        with pytest.raises(fo.DataError, match="the model takes columns that .* has not: 'a', 'b'; it has 'p', 'q'"):
            fo.generate(model, rows, progress=False)
    numbered = pd.DataFrame(data.to_numpy())
    np.testing.assert_allclose(fo.generate(model, numbered, progress=False).probs, model.predict_proba(data), atol=1e-6)


def test_a_column_of_lists() -> None:
    x = np.arange(12.0).reshape(4, 3)
    (batch,) = opened(pd.DataFrame({"e": list(x), "note": list("abcd")})).batches(10)
    np.testing.assert_array_equal(batch.inputs["0"], x)
    with pytest.raises(fo.DataError, match="the lists in the column 'e' differ in shape"):
        opened(pd.DataFrame({"e": [[1.0], [1.0, 2.0]]}))
