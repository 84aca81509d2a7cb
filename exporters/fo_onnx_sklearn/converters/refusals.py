"""What steps of a pipeline refuse of what the steps before them give: numbers that overflowed, which are no row's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .graph import Converter, Graph

HAND_ON = frozenset({"StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "SimpleImputer"})
"""Transformers that take NaN and make infinity of infinity, so that a later step refuses it."""
COMPOSITES = frozenset({"ColumnTransformer", "FeatureUnion"})
"""Transformers that check nothing themselves, and may drop a column."""


def checked_steps(parts: Iterable[Any], converters: Mapping[type, Converter]) -> dict[type, Converter]:
    """Return converters of the steps that refuse what is not finite, which check that first.

    Args:
        parts: Every estimator within the model.
        converters: Those of this package, by class; for others skl2onnx's own are taken.
    """
    pipelines = (part for part in parts if type(part).__name__ == "Pipeline")
    steps = (_first_of(step) for pipeline in pipelines for _, step in pipeline.steps[1:])
    return {type(step): _checked(converters.get(type(step))) for step in steps if _refuses_infinity(step)}


def _first_of(step: Any) -> Any:
    return _first_of(step.steps[0][1]) if type(step).__name__ == "Pipeline" else step


def _refuses_infinity(step: Any) -> bool:
    """Return whether an estimator refuses infinity that no other one would refuse for it."""
    from sklearn.utils import get_tags

    name = type(step).__name__
    if name in COMPOSITES or not hasattr(step, "n_features_in_") or get_tags(step).no_validation:
        return False
    if not _takes_nan(step):
        return True
    return hasattr(step, "transform") and (name not in HAND_ON or getattr(step, "clip", False))


def _takes_nan(step: Any) -> bool:
    from sklearn.utils import get_tags

    return bool(get_tags(step).input_tags.allow_nan)


def _checked(converter: Converter | None) -> Converter:
    def convert(scope: Any, operator: Any, container: Any) -> None:
        from skl2onnx.common._registration import get_converter

        graph, estimator = Graph(scope, operator, container), operator.raw_operator
        graph.refuse_infinity(graph.rows(), int(estimator.n_features_in_), takes_nan=_takes_nan(estimator))
        (converter or get_converter(operator.type))(scope, operator, container)

    return convert
