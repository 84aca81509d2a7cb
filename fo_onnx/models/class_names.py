"""The class names that hold for a run: those of the caller, else the model's own."""

from __future__ import annotations

from collections.abc import Sequence

from ..contracts.spec import ModelSpec
from ..errors import OptionError


def choose_class_names(names: Sequence[str] | None, spec: ModelSpec) -> tuple[str, ...] | None:
    """Return the class names that hold: those of the caller, else the model's own.

    Raises:
        OptionError: Their number is not the model's, or they are other than the model's own.
    """
    if names is None:
        return spec.class_names
    names = tuple(names)
    if spec.classes is not None and len(names) != spec.classes:
        raise OptionError(f"class_names holds {len(names)} names, and {spec.name} has {spec.classes} classes.")
    if spec.class_names is not None and names != spec.class_names:
        raise OptionError(
            f"class_names are other than those that {spec.name} was exported with: given {list(names)}, exported "
            f"{list(spec.class_names)}. To reorder columns use Distributions.align()."
        )
    return names
