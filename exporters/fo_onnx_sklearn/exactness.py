"""Estimators for which a last bit decides, so that rows could differ in ONNX and a comparison of a few not show it.

A threshold turns a rounding error into a jump. The trees that this package writes compare as scikit-learn's do: they are
exact if what comes before them is. What is not exact is named here, and runs natively unless ONNX is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .classifier import classifier_of, without_wrappers
from .detect import is_estimator

TIES = frozenset({"KNeighborsClassifier", "RadiusNeighborsClassifier", "KNNImputer", "KNeighborsTransformer"})
WORDS = frozenset({"CountVectorizer", "TfidfVectorizer", "HashingVectorizer"})
THRESHOLDS = frozenset({
    "DecisionTreeClassifier", "ExtraTreeClassifier", "RandomForestClassifier", "ExtraTreesClassifier",
    "GradientBoostingClassifier", "HistGradientBoostingClassifier", "AdaBoostClassifier", "KBinsDiscretizer", "Binarizer",
    "BernoulliNB", "RandomTreesEmbedding", "CategoricalNB",
})  # fmt: skip
"""Estimators that compare a number with a threshold, or round it."""
EXACT = frozenset({
    "StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "SimpleImputer", "OneHotEncoder", "OrdinalEncoder",
    "ColumnTransformer", "FeatureUnion", "VarianceThreshold", "SelectKBest", "SelectPercentile", "SelectFpr", "SelectFdr",
    "SelectFwe", "SelectFromModel", "GenericUnivariateSelect", "RFE", "RFECV", "SequentialFeatureSelector", "Binarizer",
    "KBinsDiscretizer", "PolynomialFeatures", "FunctionTransformer", "Pipeline", "PCA",
})  # fmt: skip
"""Transformers that in float64 give the same numbers in ONNX, thresholds included. PCA's products are summed in another
order, 1e-16 apart, which a tree's rounding to float32 takes away but for one value in a billion."""


def prefer_native(model: Any) -> str | None:
    """Return why a classifier is better run natively; ``None`` if ONNX is the first choice."""
    return next(_hazards(without_wrappers(classifier_of(model)), None), None)


def _hazards(estimator: Any, before: str | None) -> Iterator[str]:
    """Yield the reasons within an estimator; `before` names the transformer that makes its input inexact, if one does."""
    name = type(estimator).__name__
    if name in TIES:
        yield f"neighbours at equal distances are chosen in another order in ONNX than {name} chooses them"
    if name in WORDS:
        yield f"{name} cuts text into words by a regular expression of Python, which ONNX has not"
    if before is not None and name in THRESHOLDS:
        yield (
            f"{name} compares with thresholds what {before} gives, which differs in its last bits in ONNX, so that single rows "
            "could come out elsewhere"
        )
    if name == "Pipeline":
        for _, step in estimator.steps:
            yield from _hazards(step, before)
            before = before or _inexact(step)
        return
    if name == "StackingClassifier":
        for member in estimator.estimators_:
            yield from _hazards(member, before)
        yield from _hazards(estimator.final_estimator_, before or "StackingClassifier's members")
        return
    if name in THRESHOLDS or _is_selector(name):
        return
    for inner in _members(estimator):
        yield from _hazards(inner, before)


def _inexact(step: Any) -> str | None:
    """Return the name of the transformer within a step that is not exact."""
    if not is_estimator(step):
        return None
    name = type(step).__name__
    if name not in EXACT or not type(step).__module__.startswith("sklearn."):
        return name
    if _is_selector(name):
        return None
    return next(filter(None, map(_inexact, _members(step))), None)


def _is_selector(name: str) -> bool:
    """Return whether an estimator only selects columns, so that those within it have no part in the rows."""
    return name.startswith("Select") or name in ("RFE", "RFECV", "GenericUnivariateSelect")


def _members(estimator: Any) -> Iterator[Any]:
    """Yield the fitted estimators within one."""
    fitted = {
        k: v for k, v in vars(estimator).items() if k.endswith("_") or k in ("steps", "estimator", "transformer_list")
    }
    if any(k.endswith("_") and any(True for _ in _estimators_in(v)) for k, v in fitted.items()):
        # Then the parameter is the unfitted one that these are copies of.
        fitted.pop("estimator", None)
    for value in fitted.values():
        yield from _estimators_in(value)


def _estimators_in(value: Any) -> Iterator[Any]:
    if is_estimator(value):
        yield value
    elif type(value).__name__ == "_CalibratedClassifier":
        yield value.estimator
    elif isinstance(value, list | tuple) and len(value) < 10_000:
        for item in value:
            yield from _estimators_in(item)


def parts_of(estimator: Any) -> Iterator[Any]:
    """Yield every estimator within one, itself included, from the outside to the inside."""
    yield estimator
    for inner in _members(estimator):
        yield from parts_of(inner)
