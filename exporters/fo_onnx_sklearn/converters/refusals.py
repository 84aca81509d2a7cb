"""What steps of a pipeline refuse of what the steps before them give: numbers that overflowed, which are no row's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .graph import Converter, Graph


def checked_steps(parts: Iterable[Any], converters: Mapping[type, Converter]) -> dict[type, Converter]:
    """Return converters of the steps that refuse what is not finite, which check that first.

    Args:
        parts: Every estimator within the model.
        converters: Those of this package, by class; for others skl2onnx's own are taken.
    """
    pipelines = (part for part in parts if type(part).__name__ == "Pipeline")
    steps = (step for pipeline in pipelines for _, step in pipeline.steps[1:])
    kinds = {type(step) for step in steps if _refuses_what_is_not_finite(step)}
    return {kind: _checked(converters.get(kind)) for kind in kinds}


def _refuses_what_is_not_finite(step: Any) -> bool:
    """Return whether an estimator refuses NaN and infinity. What takes NaN hands infinity on to a step that refuses it."""
    from sklearn.utils import get_tags

    if not hasattr(step, "n_features_in_"):
        return False
    tags = get_tags(step)
    return not (tags.no_validation or tags.input_tags.allow_nan)


def _checked(converter: Converter | None) -> Converter:
    def convert(scope: Any, operator: Any, container: Any) -> None:
        from skl2onnx.common._registration import get_converter

        graph = Graph(scope, operator, container)
        graph.refuse_infinity(graph.rows(), int(operator.raw_operator.n_features_in_))
        (converter or get_converter(operator.type))(scope, operator, container)

    return convert
