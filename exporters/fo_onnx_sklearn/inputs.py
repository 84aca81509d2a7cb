"""What an estimator takes: columns by name, one matrix, or one text per row."""

from __future__ import annotations

from typing import Any

from sklearn.utils import get_tags

from fo_onnx.contracts.spec import InputSignature

from .classifier import MATRIX, column_names
from .detect import estimator_of, is_estimator, package_of
from .exactness import members_of, parts_of


def signature_of(model: Any) -> InputSignature:
    """Return the columns by name, in order; or one input."""
    names, estimator = column_names(model), estimator_of(model)
    if names is not None:
        return InputSignature(names, takes_text=_takes_text(estimator))
    rank = _rank_of(estimator)
    return InputSignature((MATRIX,), (), None if rank is None else (rank,), _takes_text(estimator))


def _takes_text(estimator: Any) -> bool:
    """Return whether text may mean something to a part of an estimator."""
    return any(_is_custom(part) or _takes_words(part) for part in parts_of(estimator))


def _rank_of(estimator: Any) -> int | None:
    """Return the number of axes of the rows together: 1 for text that is cut into words; ``None`` if a custom step decides it."""
    if not _is_custom(estimator) and not get_tags(estimator).input_tags.two_d_array:
        return 1
    # What a wrapper is given, its first part is given too; a ColumnTransformer's parts are given columns of it.
    members = [] if type(estimator).__name__ == "ColumnTransformer" else members_of(estimator)
    if not members:
        return 2
    is_step = hasattr(estimator, "steps") or hasattr(estimator, "transformer_list")
    return None if is_step and _is_custom(members[0]) else _rank_of(members[0])


def _is_custom(part: Any) -> bool:
    """Return whether a part is of another package or calls a function, so that only a run shows what it takes."""
    return not is_estimator(part) or package_of(part) != "sklearn" or type(part).__name__ == "FunctionTransformer"


def _takes_words(part: Any) -> bool:
    tags = get_tags(part).input_tags
    return bool(tags.string or tags.categorical)
