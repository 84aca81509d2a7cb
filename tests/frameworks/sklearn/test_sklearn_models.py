"""What a user does with fitted classifiers, by the public verbs."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import (
    calibration,
    discriminant_analysis,
    ensemble,
    gaussian_process,
    linear_model,
    model_selection,
    multioutput,
    neighbors,
    pipeline,
    preprocessing,
    semi_supervised,
    svm,
    tree,
)
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.feature_extraction.text import CountVectorizer
from sklearn_rows import EXPORTER, classes, fit, grid

import fo_onnx as fo
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.errors import (
    DataError,
    DeviceError,
    ExportError,
    FallbackWarning,
    ModelError,
    OptionError,
    OutputError,
)

logistic = linear_model.LogisticRegression


def generated(model: Any, data: Any, **options: Any) -> fo.Distributions:
    return fo.generate(model, data, progress=False, **options)


def assert_same(dists: fo.Distributions, model: Any, x: Any) -> None:
    np.testing.assert_allclose(dists.probs, model.predict_proba(x), atol=1e-6)


def test_generate_and_export(tmp_path: Path) -> None:
    model, x = (
        fit(pipeline.make_pipeline(preprocessing.StandardScaler(), ensemble.RandomForestClassifier(10))),
        grid(700),
    )
    before = pickle.dumps(model)

    dists = generated(model, x)
    file = fo.export(model, x, tmp_path / "forest.onnx")

    assert dists.meta["runner"]["kind"] == "onnx"
    assert dists.meta["parity"]["passed"]
    assert_same(dists, model, x)
    assert_same(generated(file, x), model, x)
    assert file.provenance["versions"].keys() == {"scikit-learn", "skl2onnx"}
    assert pickle.dumps(model) == before


def test_a_file_has_one_output_and_no_labels(tmp_path: Path) -> None:
    import onnx

    file = fo.export(fit(logistic()), grid(50), tmp_path / "m.onnx")
    graph = onnx.load_model(file.path).graph

    assert [o.name for o in graph.output] == ["probs"]
    assert not {n.op_type for n in graph.node} & {"ZipMap", "ArgMax", "ArrayFeatureExtractor"}
    assert [i.name for i in graph.input] == ["X"]


@pytest.mark.parametrize("opset", [13, 15, 17, 18, 21])
def test_operator_sets(opset: int, tmp_path: Path) -> None:
    model = fit(pipeline.make_pipeline(preprocessing.KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf"),
                                       ensemble.GradientBoostingClassifier(n_estimators=4)))  # fmt: skip
    file = fo.export(model, grid(50), tmp_path / "m.onnx", opset=opset)
    assert_same(generated(file, grid(90, 2)), model, grid(90, 2))


def test_an_operator_set_that_is_too_new(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="skl2onnx cannot convert LogisticRegression"):
        fo.export(fit(logistic()), grid(50), tmp_path / "m.onnx", opset=99)


def test_predict_proba_is_the_estimator() -> None:
    model = fit(logistic())
    dists = generated(model.predict_proba, grid(100))
    assert dists.meta["runner"]["kind"] == "onnx"
    assert_same(dists, model, grid(100))


def test_predict_is_refused() -> None:
    with pytest.raises(OutputError, match="a predicted class"):
        generated(fit(logistic()).predict, grid(100))


@pytest.mark.parametrize(
    "make",
    [
        lambda: model_selection.GridSearchCV(logistic(), {"C": [0.1, 1.0]}, cv=2),
        lambda: model_selection.RandomizedSearchCV(logistic(), {"C": [0.1, 1.0]}, n_iter=2, cv=2),
        lambda: model_selection.TunedThresholdClassifierCV(logistic(), cv=2),
        lambda: model_selection.FixedThresholdClassifier(logistic(), threshold=0.3),
        lambda: semi_supervised.SelfTrainingClassifier(logistic()),
        lambda: pipeline.make_pipeline(preprocessing.StandardScaler(), model_selection.GridSearchCV(logistic(), {"C": [1.0]}, cv=2)),
        lambda: pipeline.make_pipeline(pipeline.make_pipeline(preprocessing.StandardScaler(), logistic())),
        lambda: ensemble.VotingClassifier([("a", pipeline.make_pipeline(preprocessing.StandardScaler(), logistic()))], voting="soft"),
        lambda: calibration.CalibratedClassifierCV(pipeline.make_pipeline(preprocessing.StandardScaler(), svm.LinearSVC()), cv=2),
        lambda: ensemble.StackingClassifier(
            [("a", logistic()), ("b", pipeline.make_pipeline(preprocessing.StandardScaler(), logistic()))], cv=2),
    ],
)  # fmt: skip
def test_wrappers(make: Any) -> None:
    model = fit(make(), count=2)
    before = pickle.dumps(model)

    dists = generated(model, grid(300, 5), runner="onnx")

    assert_same(dists, model, grid(300, 5))
    assert pickle.dumps(model) == before


def named(names: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    x = grid(300)
    return x, np.array(names)[classes(x)]


@pytest.mark.parametrize("make", [logistic, lambda: tree.DecisionTreeClassifier(max_depth=4)])
def test_text_labels_go_to_their_columns(make: Any, tmp_path: Path) -> None:
    x, y = named(["dog", "eel", "cat"])
    model = make().fit(x, y)

    dists = generated(model, (x, y))
    from_file = generated(fo.export(model, x, tmp_path / "m.onnx"), x, labels=y)

    for one in (dists, from_file):
        assert one.class_names == ("cat", "dog", "eel")
        assert np.asarray(one.class_names)[one.labels].tolist() == y.tolist()
    assert_same(dists, model, x)


def test_names_of_numbered_classes() -> None:
    x, y = named([0, 1, 2])
    assert generated(logistic().fit(x, y), (x, y)).class_names is None
    x, y = named([3, 5, 9])
    assert generated(logistic().fit(x, y), x).class_names == ("3", "5", "9")
    x, y = named([1.0, 2.0, 3.0])
    assert generated(logistic().fit(x, y), x).class_names == ("1", "2", "3")
    assert generated(logistic().fit(x, y > 1), x).class_names == ("False", "True")


def test_class_names_may_not_be_others() -> None:
    x, y = named(["dog", "eel", "cat"])
    with pytest.raises(OptionError, match="class_names are other than those"):
        generated(logistic().fit(x, y), x, class_names=["dog", "eel", "cat"])


NO_DISTRIBUTION = {
    "linear_svc": svm.LinearSVC,
    "svc": svm.SVC,
    "ridge": linear_model.RidgeClassifier,
    "hinge": linear_model.SGDClassifier,
    "pipeline": lambda: pipeline.make_pipeline(preprocessing.StandardScaler(), svm.LinearSVC()),
    "hard_voting": lambda: ensemble.VotingClassifier([("a", logistic())]),
}


@pytest.mark.parametrize("name", NO_DISTRIBUTION)
def test_classifiers_without_distributions(name: str) -> None:
    with pytest.raises(OutputError, match="has no predict_proba.*Wrap it in CalibratedClassifierCV"):
        generated(fit(NO_DISTRIBUTION[name]()), grid(30))


def test_distances_are_no_logits() -> None:
    with pytest.raises(OutputError, match="decision_function gives distances, which are no logits"):
        generated(fit(svm.LinearSVC()), grid(30))


def test_what_is_no_classifier() -> None:
    with pytest.raises(ModelError, match="LinearRegression is a regressor; a fitted classifier"):
        generated(fit(linear_model.LinearRegression()), grid(30))
    with pytest.raises(ModelError, match="StandardScaler is no classifier"):
        generated(fit(preprocessing.StandardScaler()), grid(30))


def test_what_is_not_fitted() -> None:
    with pytest.raises(ModelError, match="LogisticRegression is not fitted; call fit"):
        generated(logistic(), grid(30))
    with pytest.raises(ModelError, match="GridSearchCV was made with refit=False"):
        generated(fit(model_selection.GridSearchCV(logistic(), {"C": [1.0]}, refit=False, cv=2)), grid(30))


def test_several_outputs() -> None:
    x = grid(100)
    pairs = np.stack([classes(x), classes(x, 2)], axis=1)
    for model in (ensemble.RandomForestClassifier(3), multioutput.MultiOutputClassifier(logistic())):
        with pytest.raises(ModelError, match="fitted on several outputs per row"):
            generated(model.fit(x, pairs), x)


def test_a_single_class() -> None:
    with pytest.raises(ModelError, match="fitted on a single class"):
        generated(tree.DecisionTreeClassifier().fit(grid(20), np.zeros(20)), grid(20))


def test_other_devices() -> None:
    with pytest.raises(DeviceError, match="scikit-learn runs on the CPU only"):
        generated(fit(logistic()), grid(20), device="cuda", runner="native")
    assert generated(fit(logistic()), grid(20), device="cpu").meta["runner"]["kind"] == "onnx"


def test_params_are_refused() -> None:
    with pytest.raises(OptionError, match="a model of sklearn holds its own"):
        generated(fit(logistic()), grid(20), params={})


def test_rows_of_another_width() -> None:
    with pytest.raises(DataError, match="expecting 5 features"):
        generated(fit(logistic()), grid(20)[:, :4])


def test_neighbours_run_natively_by_choice() -> None:
    model, x = fit(neighbors.KNeighborsClassifier()), grid(200, 4)

    dists = generated(model, x)

    assert dists.meta["runner"]["kind"] == "native"
    assert "equal distances" in dists.meta["runner"]["reason"]
    np.testing.assert_allclose(dists.probs, model.predict_proba(x), atol=1e-7)


def test_candidates_that_were_not_chosen_have_no_say() -> None:
    search = model_selection.GridSearchCV(
        pipeline.Pipeline([("last", neighbors.KNeighborsClassifier())]),
        {"last": [neighbors.KNeighborsClassifier(100), logistic()]},
        cv=2,
    )
    model = fit(ensemble.VotingClassifier([("a", search), ("b", logistic())], voting="soft"))

    assert isinstance(model.estimators_[0].best_estimator_[-1], logistic)
    assert EXPORTER.prefer_native(model, {}) is None


def test_words_run_natively_by_choice() -> None:
    texts = ["red fish", "blue fish", "one fish", "two"] * 10
    model = pipeline.make_pipeline(CountVectorizer(), logistic()).fit(texts, [0, 1, 0, 1] * 10)
    assert "into words by a regular expression" in str(EXPORTER.prefer_native(model, {}))


def doubled(x: np.ndarray) -> np.ndarray:
    return x * 2


def test_functions_run_natively() -> None:
    model, x = fit(pipeline.make_pipeline(preprocessing.FunctionTransformer(doubled), logistic())), grid(200, 4)

    with pytest.warns(FallbackWarning, match="cannot convert Pipeline because of FunctionTransformer"):
        dists = generated(model, x)

    np.testing.assert_allclose(dists.probs, model.predict_proba(x), atol=1e-7)
    with pytest.raises(ExportError, match="because of FunctionTransformer"):
        generated(model, x, runner="onnx")


class Majority(ClassifierMixin, BaseEstimator):
    """A third party's classifier, which no converter is there for."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> Majority:
        self.classes_, counts = np.unique(y, return_counts=True)
        self.shares_ = counts / counts.sum()
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        weights = self.shares_ * np.exp(np.outer(x[:, 0], np.arange(len(self.classes_))))
        return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("make", [Majority, lambda: gaussian_process.GaussianProcessClassifier(optimizer=None)])
def test_classifiers_without_converter(make: Any) -> None:
    model = make().fit(grid(60), classes(grid(60)))
    with pytest.warns(FallbackWarning, match=type(model).__name__):
        dists = generated(model, grid(50, 4))
    np.testing.assert_allclose(dists.probs, model.predict_proba(grid(50, 4)), atol=1e-7)


@pytest.mark.parametrize("member", [svm.SVC, discriminant_analysis.LinearDiscriminantAnalysis])
def test_bagging_of_members_without_converter(member: Any) -> None:
    x, y = grid(200), classes(grid(200))
    y[:] = np.where(np.arange(200) < 2, 2, np.minimum(y, 1))  # too few for each member to see
    model = ensemble.BaggingClassifier(member(), n_estimators=6, max_samples=0.3, random_state=3).fit(x, y)

    with pytest.warns(FallbackWarning, match="members without predict_proba, or that have not seen every class"):
        dists = generated(model, x)

    assert_same(dists, model, x)
    with pytest.raises(ExportError, match="members without predict_proba, or that have not seen every class"):
        generated(model, x, runner="onnx")


def test_bad_rows_by_both_engines() -> None:
    model, x = fit(logistic()), grid(300, 4)
    x[5, 1], x[280, 0] = np.nan, np.inf
    for runner in ("onnx", "native"):
        dists = generated(model, x, runner=runner, on_error="skip")
        assert sorted(set(range(300)) - set(dists.ids.tolist())) == [5, 280]
    with pytest.raises(DataError, match="row 5 .* there is NaN in its input"):
        generated(model, x)


class Recorder(linear_model.LogisticRegression):
    """Keeps how many rows it predicted at a time."""

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        probs = super().predict_proba(x)
        self.predicted_ = [*getattr(self, "predicted_", []), len(x)]
        return probs


def test_good_rows_are_predicted_together() -> None:
    model, x = fit(Recorder()), grid(300, 4)
    x[::15, 2] = np.inf
    native = EXPORTER.native(model, {"0": x[:3]}, "cpu", ModelOptions(), OutputOptions())

    probs = native.forward({"0": x})

    assert model.predicted_ == [280]
    assert np.flatnonzero(np.isnan(probs).any(axis=1)).tolist() == list(range(0, 300, 15))
    good = np.isfinite(x).all(axis=1)
    np.testing.assert_array_equal(probs[good], model.predict_proba(x[good]))


def test_missing_values_that_are_filled_are_no_bad_rows() -> None:
    from sklearn.impute import SimpleImputer

    x = grid(300, 4)
    x[::3, 1] = np.nan
    model = fit(pipeline.make_pipeline(SimpleImputer(), ensemble.RandomForestClassifier(5)), x)
    dists = generated(model, x)
    assert dists.meta["runner"]["kind"] == "onnx"
    assert_same(dists, model, x)


def test_float32_rows_are_computed_in_float64() -> None:
    model, x = fit(pipeline.make_pipeline(preprocessing.StandardScaler(), tree.DecisionTreeClassifier())), grid(3000, 4)
    x = x.astype(np.float32)
    assert_same(generated(model, x), model, x.astype(np.float64))
    assert_same(generated(model, x, runner="native"), model, x.astype(np.float64))


def test_the_native_runner_leaves_rows_alone() -> None:
    model, x = fit(pipeline.make_pipeline(preprocessing.StandardScaler(copy=False), logistic())), grid(50, 4)
    before = x.copy()
    generated(model, x, runner="native")
    np.testing.assert_array_equal(x, before)


def test_sparse_rows() -> None:
    import scipy.sparse

    with pytest.raises(DataError, match=r"a sparse matrix of shape \(20, 5\).*\.toarray\(\)"):
        generated(fit(logistic()), scipy.sparse.csr_matrix(grid(20)))


def test_a_missing_converter_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    with pytest.warns(FallbackWarning, match=r"pip install 'fo-onnx\[sklearn\]'"):
        dists = generated(fit(logistic()), grid(50))
    assert dists.meta["runner"]["kind"] == "native"


def test_jobs_make_no_other_model() -> None:
    one = fit(ensemble.RandomForestClassifier(5, n_jobs=1, random_state=0))
    two = fit(ensemble.RandomForestClassifier(5, n_jobs=2, random_state=0))
    assert EXPORTER.fingerprint(one, {}) == EXPORTER.fingerprint(two, {})
