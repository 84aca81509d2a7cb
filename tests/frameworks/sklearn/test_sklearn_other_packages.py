"""Classifiers of scikit-learn's neighbours: LightGBM, XGBoost, CatBoost, imbalanced-learn, and anybody's."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn_rows import EXPORTER, fit, grid

import fo_onnx as fo
from fo_onnx.errors import ExportError, FallbackWarning, ModelError

BOOSTERS = ["lightgbm", "xgboost", "catboost"]


def booster(package: str, **options: Any) -> Any:
    pytest.importorskip(package)
    if package == "lightgbm":
        from lightgbm import LGBMClassifier

        return LGBMClassifier(n_estimators=4, num_leaves=7, verbose=-1, n_jobs=1, **options)
    if package == "xgboost":
        from xgboost import XGBClassifier

        return XGBClassifier(n_estimators=4, max_depth=3, n_jobs=1, **options)
    from catboost import CatBoostClassifier

    return CatBoostClassifier(iterations=4, verbose=0, thread_count=1, allow_writing_files=False, **options)


def generated(model: Any, data: Any, **options: Any) -> fo.Distributions:
    return fo.generate(model, data, progress=False, **options)


def assert_natively_the_same(model: Any, data: Any, reason: str) -> None:
    expected = getattr(model, "__self__", model).predict_proba(data)
    with pytest.warns(FallbackWarning, match=reason):
        dists = generated(model, data)
    assert dists.meta["runner"]["kind"] == "native"
    assert reason in dists.meta["runner"]["reason"]
    np.testing.assert_allclose(dists.probs, expected, atol=1e-6)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("package", BOOSTERS)
def test_boosters_run_natively(package: str, count: int) -> None:
    model, x = fit(booster(package), count=count), grid(400, 4)
    reason = f"{type(model).__name__} ({package}) has no converter"
    for one in (model, model.predict_proba):
        with pytest.warns(FallbackWarning):
            dists = generated(one, x)
        assert dists.meta["runner"]["kind"] == "native"
        assert reason in dists.meta["runner"]["reason"]
        np.testing.assert_allclose(dists.probs, model.predict_proba(x), atol=1e-6)
    with pytest.raises(ExportError, match="has no converter"):
        generated(model, x, runner="onnx")


@pytest.mark.parametrize("package", BOOSTERS)
def test_boosters_within_others(package: str) -> None:
    x = grid(300, 4)
    for make in (
        lambda: make_pipeline(StandardScaler(), booster(package)),
        lambda: GridSearchCV(booster(package), {"max_depth": [2]}, cv=2),
    ):
        model = fit(make(), count=2)
        with pytest.warns(FallbackWarning, match=rf"\({package}\) has no converter"):
            dists = generated(model, x)
        np.testing.assert_allclose(dists.probs, model.predict_proba(x), atol=1e-6)


@pytest.mark.parametrize("package", BOOSTERS)
def test_boosters_that_are_not_fitted(package: str) -> None:
    with pytest.raises(ModelError, match="is not fitted; call fit"):
        generated(booster(package), grid(20))


@pytest.mark.parametrize("package", BOOSTERS)
def test_boosters_in_files(package: str, tmp_path: Path) -> None:
    model, x = fit(booster(package)), grid(50, 4)
    joblib.dump(model, tmp_path / "model.joblib")
    with pytest.warns(FallbackWarning):
        dists = generated(tmp_path / "model.joblib", x, trust=True)
    np.testing.assert_allclose(dists.probs, model.predict_proba(x), atol=1e-6)


@pytest.mark.parametrize("package", BOOSTERS)
def test_the_same_trees_are_the_same_model(package: str) -> None:
    one, again, other = fit(booster(package)), fit(booster(package)), fit(booster(package), grid(300, 9))
    digests = [EXPORTER.fingerprint(m, {}) for m in (one, again, pickle.loads(pickle.dumps(one)), other)]
    assert digests[0] == digests[1] == digests[2] != digests[3]


def test_integers_that_are_categories() -> None:
    x = np.random.default_rng(0).integers(0, 5, (300, 3))
    model = booster("catboost", cat_features=[0, 1]).fit(x, (x[:, 0] == 2).astype(int))
    with pytest.warns(FallbackWarning):
        dists = generated(model, x)
    np.testing.assert_allclose(dists.probs, model.predict_proba(x), atol=1e-6)


@pytest.mark.parametrize("package", BOOSTERS)
def test_columns_of_categories(package: str) -> None:
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    for values in (["u", "v", "w"], [10, 20, 30]):
        frame = pandas.DataFrame({"a": rng.normal(size=300), "zip": pandas.Categorical(rng.choice(values, 300))})
        y = ((frame.zip.cat.codes + (frame.a > 0)) % 3).to_numpy()
        options = {"xgboost": {"enable_categorical": True}, "catboost": {"cat_features": ["zip"]}}.get(package, {})
        model = booster(package, **options).fit(frame, y)
        with pytest.warns(FallbackWarning):
            dists = generated(model, frame)
        np.testing.assert_allclose(dists.probs, model.predict_proba(frame), atol=1e-6)


def test_categories_beside_missing_ones() -> None:
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    for values in ([True, False], [10, 20], [0.5, 1.5]):
        kind = pandas.CategoricalDtype(values)
        frame = pandas.DataFrame({"a": rng.normal(size=300), "c": pandas.Series(rng.choice(values, 300), dtype=kind)})
        model = booster("lightgbm", min_child_samples=5).fit(frame, (frame.c == values[0]) ^ (frame.a > 0))
        frame.loc[5, "c"] = None
        with pytest.warns(FallbackWarning):
            dists = generated(model, frame)
        np.testing.assert_allclose(dists.probs, model.predict_proba(frame), atol=1e-6)


# Converters of other packages ------------------------------------------------------------------------------------


@pytest.fixture
def registered_lightgbm() -> Iterator[None]:
    """onnxmltools' converter of LightGBM, registered as its documentation says, for the time of a test."""
    lightgbm = pytest.importorskip("lightgbm")
    pytest.importorskip("onnxmltools")
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
    from skl2onnx import update_registered_converter
    from skl2onnx._supported_operators import sklearn_operator_name_map
    from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes

    update_registered_converter(
        lightgbm.LGBMClassifier, "LightGbmLGBMClassifier", calculate_linear_classifier_output_shapes, convert_lightgbm,
        options={"nocl": [True, False], "zipmap": [True, False, "columns"]},
    )  # fmt: skip
    yield
    del sklearn_operator_name_map[lightgbm.LGBMClassifier]


@pytest.mark.usefixtures("registered_lightgbm")
def test_a_converter_that_compares_in_float32() -> None:
    rng = np.random.default_rng(0)
    seconds = 1.7e9 + rng.integers(0, 10_000_000, 30_000).astype(float)  # float32 has steps of 128 there
    x = np.stack([seconds, rng.normal(size=len(seconds))], axis=1)
    model = booster("lightgbm").fit(x, ((np.sin(seconds / 3e5) > 0) ^ (x[:, 1] > 1)).astype(int))

    dists = generated(model, x)

    assert "LGBMClassifier (lightgbm) has a converter of another package" in dists.meta["runner"]["reason"]
    np.testing.assert_allclose(dists.probs, model.predict_proba(x), atol=1e-6)


@pytest.mark.usefixtures("registered_lightgbm")
@pytest.mark.parametrize(
    "make",
    [
        lambda: make_pipeline(StandardScaler(), booster("lightgbm")),
        lambda: StackingClassifier([("a", booster("lightgbm"))], cv=2),
        lambda: VotingClassifier([("a", booster("lightgbm")), ("b", LogisticRegression())], voting="soft"),
        lambda: GridSearchCV(booster("lightgbm"), {"num_leaves": [5]}, cv=2),
    ],
)
def test_models_that_hold_such_a_converter(make: Any) -> None:
    assert "LGBMClassifier (lightgbm)" in str(EXPORTER.prefer_native(fit(make(), count=2), {}))


@pytest.mark.usefixtures("registered_lightgbm")
def test_such_a_converter_on_demand() -> None:
    model, x = fit(booster("lightgbm"), count=2), grid(300, 4).astype(np.float32)
    dists = generated(model, x, runner="onnx")
    np.testing.assert_allclose(dists.probs, model.predict_proba(x.astype(np.float64)), atol=1e-5)


# Boosters without classes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3])
def test_boosters_without_classes_name_their_function(count: int) -> None:
    x, options = grid(200, 4), {"output": "binary_probs"} if count == 2 else {}
    for package in ("lightgbm", "xgboost"):
        model = fit(booster(package), count=count)
        trees = model.booster_ if package == "lightgbm" else model.get_booster()
        method = "predict" if package == "lightgbm" else "inplace_predict"
        with pytest.raises(ModelError, match=rf"Booster \({package}\) does not say.*booster\.{method}"):
            generated(trees, x)
        dists = generated(getattr(trees, method), x, **options)
        np.testing.assert_allclose(dists.probs, model.predict_proba(x), atol=1e-6)


def test_catboost_without_classes_names_its_function() -> None:
    catboost = pytest.importorskip("catboost")
    options = {"loss_function": "MultiClass", "iterations": 2, "verbose": 0, "allow_writing_files": False}
    model, x = fit(catboost.CatBoost(options)), grid(100, 4)
    with pytest.raises(ModelError, match=r"Give its function .*lambda x: model.predict\(x, prediction_type='Prob"):
        generated(model, x)
    dists = generated(lambda rows: model.predict(rows, prediction_type="Probability"), x)
    np.testing.assert_allclose(dists.probs, model.predict(x, prediction_type="Probability"), atol=1e-6)


# Anybody's classifiers -------------------------------------------------------------------------------------------


class Untagged(BaseEstimator):
    """A classifier from before scikit-learn's tags."""

    _estimator_type = "classifier"

    def fit(self, x: np.ndarray, y: np.ndarray) -> Any:
        self.inner_ = LogisticRegression().fit(x, y)
        self.classes_ = self.inner_.classes_
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return self.inner_.predict_proba(x)


class MixinsInTheOtherOrder(BaseEstimator, ClassifierMixin):
    fit, predict_proba = Untagged.fit, Untagged.predict_proba


class NoEstimator:
    """Nothing of scikit-learn, but a classifier by what it has."""

    classes_ = ("no", "yes")

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        second = 1 / (1 + np.exp(-x[:, 0]))
        return np.stack([1 - second, second], axis=1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: fit(Untagged()),
        lambda: fit(MixinsInTheOtherOrder()),
        lambda: fit(make_pipeline(StandardScaler(), Untagged())),
        lambda: fit(GridSearchCV(MixinsInTheOtherOrder(), {}, cv=2, scoring="neg_log_loss")),
        NoEstimator,
    ],
)
def test_classifiers_by_what_they_have(make: Any) -> None:
    model = make()
    for one in (model, model.predict_proba):
        assert_natively_the_same(one, grid(60, 4), "has no converter")


def test_names_of_their_classes() -> None:
    with pytest.warns(FallbackWarning):
        assert generated(NoEstimator(), grid(30)).class_names == ("no", "yes")


def test_what_has_no_classes_is_told_the_way() -> None:
    with pytest.raises(
        ModelError, match=r"Untagged has predict_proba, but no classes_.*lambda x: model.predict_proba\(x\)"
    ):
        generated(Untagged(), grid(20))
    model = GaussianMixture(2, random_state=0).fit(grid(100))
    with pytest.raises(ModelError, match="GaussianMixture is a density_estimator"):
        generated(model, grid(20))
    dists = generated(lambda x: model.predict_proba(x), grid(20))
    np.testing.assert_allclose(dists.probs, model.predict_proba(grid(20)), atol=1e-6)


def test_predict_proba_is_named_where_scikit_learn_is_not_loaded(tmp_path: Path) -> None:
    """Whoever has neither scikit-learn nor a plugin for a model gets the way that is open."""
    program = (
        "import fo_onnx as fo, numpy as np\n"
        "class Model:\n"
        "    classes_ = [0, 1]\n"
        "    def predict_proba(self, x): return np.full((len(x), 2), 0.5)\n"
        "try: fo.generate(Model(), np.zeros((3, 2)))\n"
        "except fo.errors.ModelError as err: print(err)\n"
        "print(fo.generate(Model().predict_proba, np.zeros((3, 2)), progress=False).probs.shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "Give its method predict_proba" in done.stdout
    assert done.stdout.endswith("(3, 2)\n")


# imbalanced-learn ------------------------------------------------------------------------------------------------


def test_pipelines_without_their_samplers() -> None:
    pytest.importorskip("imblearn")
    from imblearn.over_sampling import SMOTE
    from imblearn.pipeline import make_pipeline as with_samplers
    from imblearn.under_sampling import RandomUnderSampler

    x = grid(400, 4)
    for model in (
        with_samplers(StandardScaler(), SMOTE(random_state=0), LogisticRegression()),
        with_samplers(RandomUnderSampler(random_state=0), make_pipeline(StandardScaler(), LogisticRegression())),
        GridSearchCV(with_samplers(SMOTE(random_state=0), LogisticRegression()), {}, cv=2),
    ):
        fit(model, count=2)
        steps = len(model.steps) if hasattr(model, "steps") else 0
        dists = generated(model, x)
        assert dists.meta["runner"]["kind"] == "onnx"
        np.testing.assert_allclose(dists.probs, model.predict_proba(x), atol=1e-6)
        assert steps == (len(model.steps) if hasattr(model, "steps") else 0)


@pytest.mark.parametrize(
    "name",
    ["BalancedRandomForestClassifier", "BalancedBaggingClassifier", "EasyEnsembleClassifier", "RUSBoostClassifier"],
)
@pytest.mark.parametrize("count", [2, 3])
def test_ensembles_of_balanced_samples(name: str, count: int) -> None:
    ensemble = pytest.importorskip("imblearn.ensemble")
    x = grid(2000, 4)
    model = getattr(ensemble, name)(n_estimators=5, random_state=0)
    fit(model, count=count)

    dists = generated(model, x)

    assert dists.meta["runner"]["kind"] == "onnx", dists.meta["runner"]["reason"]
    np.testing.assert_allclose(dists.probs, model.predict_proba(x), atol=1e-6)
