"""Estimators for which a last bit decides, so that rows could differ in ONNX and a comparison of a few not show it.

A threshold turns a rounding error into a jump. The trees that this package writes compare as scikit-learn's do: they are
exact if what comes before them is. What is not exact is named here, and runs natively unless ONNX is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .classifier import classifier_of, without_wrappers
from .detect import is_classifier_by_use, is_estimator, package_of

TIES = frozenset({"KNeighborsClassifier", "RadiusNeighborsClassifier", "KNNImputer", "KNeighborsTransformer"})
WORDS = frozenset({"CountVectorizer", "TfidfVectorizer", "HashingVectorizer"})
SELECTORS = frozenset({
    "VarianceThreshold", "SelectKBest", "SelectPercentile", "SelectFpr", "SelectFdr", "SelectFwe", "SelectFromModel",
    "GenericUnivariateSelect", "RFE", "RFECV", "SequentialFeatureSelector",
})  # fmt: skip
"""Transformers that only select columns, so that estimators within them have no part in the rows."""
THRESHOLDS = frozenset({
    "DecisionTreeClassifier", "ExtraTreeClassifier", "RandomForestClassifier", "ExtraTreesClassifier",
    "GradientBoostingClassifier", "HistGradientBoostingClassifier", "AdaBoostClassifier", "KBinsDiscretizer", "Binarizer",
    "BernoulliNB", "RandomTreesEmbedding", "CategoricalNB",
})  # fmt: skip
"""Estimators that compare a number with a threshold, or round it."""
EXACT = SELECTORS | {
    "StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "SimpleImputer", "OneHotEncoder", "OrdinalEncoder",
    "ColumnTransformer", "FeatureUnion", "Binarizer", "KBinsDiscretizer", "PolynomialFeatures", "FunctionTransformer",
    "Pipeline", "PCA",
}  # fmt: skip
"""Transformers that in float64 give the same numbers in ONNX, thresholds included. PCA's products are summed in another
order, 1e-16 apart, which a tree's rounding to float32 takes away but for one value in a billion."""


def prefer_native(model: Any) -> str | None:
    """Return why a classifier is better run natively; ``None`` if ONNX is the first choice."""
    return next(_hazards(without_wrappers(classifier_of(model)), None), None)


def _hazards(estimator: Any, before: str | None) -> Iterator[str]:
    """Yield the reasons within an estimator; `before` names the transformer that makes its input inexact, if one does."""
    name = type(estimator).__name__
    if package_of(estimator) != "sklearn":
        if has_converter(estimator):
            yield (
                f"{name} ({package_of(estimator)}) has a converter of another package, whose file may compare with thresholds in float32, "
                "or pass a row that the model refuses"
            )
        return
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
    if name not in THRESHOLDS | SELECTORS:
        for inner in members_of(estimator):
            yield from _hazards(inner, before)


def _inexact(step: Any) -> str | None:
    """Return the name of the transformer within a step that is not exact."""
    if not is_estimator(step):
        return None
    name = type(step).__name__
    if name not in EXACT or not type(step).__module__.startswith("sklearn."):
        return name
    return None if name in SELECTORS else next(filter(None, map(_inexact, members_of(step))), None)


def members_of(estimator: Any) -> list[Any]:
    """Return the fitted estimators within one; of one that keeps none, its parameters, as the steps of a pipeline are."""
    fitted = [v for k, v in vars(estimator).items() if k.endswith("_")]
    return list(_estimators_in(fitted)) or list(_estimators_in(list(vars(estimator).values())))


def _estimators_in(value: Any) -> Iterator[Any]:
    if is_estimator(value) or is_classifier_by_use(value):
        yield value
    elif type(value).__name__ == "_CalibratedClassifier":
        yield value.estimator
    elif isinstance(value, list | tuple) and len(value) < 10_000:
        for item in value:
            yield from _estimators_in(item)


def has_converter(estimator: Any) -> bool:
    """Return whether skl2onnx has a converter for the class of an estimator, its own or one that was registered."""
    try:
        from skl2onnx._supported_operators import sklearn_operator_name_map
    except ImportError:
        return False
    return type(estimator) in sklearn_operator_name_map


def parts_of(estimator: Any) -> Iterator[Any]:
    """Yield every estimator within one, itself included, from the outside to the inside; not what trees and such consist of."""
    yield estimator
    for inner in () if type(estimator).__name__ in THRESHOLDS else members_of(estimator):
        yield from parts_of(inner)
