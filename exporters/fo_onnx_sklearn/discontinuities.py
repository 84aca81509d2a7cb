"""Where a last bit decides: estimators whose rows ONNX could miss without a comparison of some rows showing it.

A threshold makes a jump of a rounding error. The trees that this package writes compare as scikit-learn's do, so that
they are exact as long as what comes before them is; the rest is told here, and runs natively unless ONNX is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .interfaces import classifier_of, without_wrappers
from .recognition import is_estimator

TIES = frozenset({"KNeighborsClassifier", "RadiusNeighborsClassifier", "KNNImputer", "KNeighborsTransformer"})
WORDS = frozenset({"CountVectorizer", "TfidfVectorizer", "HashingVectorizer"})
THRESHOLDS = frozenset({
    "DecisionTreeClassifier", "ExtraTreeClassifier", "RandomForestClassifier", "ExtraTreesClassifier",
    "GradientBoostingClassifier", "HistGradientBoostingClassifier", "AdaBoostClassifier", "KBinsDiscretizer", "Binarizer",
    "BernoulliNB", "RandomTreesEmbedding", "CategoricalNB",
})  # fmt: skip
"""What compares a number with a threshold, or rounds it."""
EXACT = frozenset({
    "StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "SimpleImputer", "OneHotEncoder", "OrdinalEncoder",
    "ColumnTransformer", "FeatureUnion", "VarianceThreshold", "SelectKBest", "SelectPercentile", "SelectFpr", "SelectFdr",
    "SelectFwe", "SelectFromModel", "GenericUnivariateSelect", "RFE", "RFECV", "SequentialFeatureSelector", "Binarizer",
    "KBinsDiscretizer", "PolynomialFeatures", "FunctionTransformer", "Pipeline", "PCA",
})  # fmt: skip
"""Transformers that in float64 give the same numbers in ONNX, thresholds included. PCA's products are summed in another
order, 1e-16 apart, which a tree's rounding to float32 takes away but for one value in a billion."""


def native_only(model: Any) -> str | None:
    """Why a classifier is better run natively; ``None`` where ONNX is the first choice."""
    return next(_hazards(without_wrappers(classifier_of(model)), None), None)


def _hazards(estimator: Any, before: str | None) -> Iterator[str]:
    """The reasons within an estimator, whose input is inexact because of `before`."""
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
    if name in THRESHOLDS or name.startswith("Select") or name in ("RFE", "RFECV"):
        return
    for inner in _parts(estimator):
        yield from _hazards(inner, before)


def _inexact(step: Any) -> str | None:
    """The transformer within a step that is not exact, by name."""
    if not is_estimator(step):
        return None
    name = type(step).__name__
    if name not in EXACT or not type(step).__module__.startswith("sklearn."):
        return name
    if name.startswith("Select") or name in ("RFE", "RFECV", "GenericUnivariateSelect"):
        return None
    return next(filter(None, map(_inexact, _parts(step))), None)


def _parts(estimator: Any) -> Iterator[Any]:
    """The fitted estimators within one."""
    fitted = {
        k: v for k, v in vars(estimator).items() if k.endswith("_") or k in ("steps", "estimator", "transformer_list")
    }
    if any(k.endswith("_") and _has_estimators(v) for k, v in fitted.items()):
        fitted.pop("estimator", None)
    for value in fitted.values():
        yield from _estimators(value)


def _has_estimators(value: Any) -> bool:
    return next(_estimators(value), None) is not None


def _estimators(value: Any) -> Iterator[Any]:
    if is_estimator(value):
        yield value
    elif type(value).__name__ == "_CalibratedClassifier":
        yield value.estimator
    elif isinstance(value, list | tuple) and len(value) < 10_000:
        for item in value:
            yield from _estimators(item)


def parts_of(estimator: Any) -> Iterator[Any]:
    """Every estimator within one, itself included, from the outside to the inside."""
    yield estimator
    for inner in _parts(estimator):
        yield from parts_of(inner)
