"""The class names that hold for a run: those of the caller, else the model's own."""

from __future__ import annotations

from collections.abc import Sequence

from ..contracts.spec import ModelSpec
from ..errors import OptionError


def choose_class_names(names: Sequence[str] | None, spec: ModelSpec) -> tuple[str, ...] | None:
    """Return the class names that hold: those of the caller, else the model's own, if these are as many as its classes.

    Raises:
        OptionError: Their number is not the model's, or they are other than the model's own.
    """
    own = spec.class_names
    if own is not None and spec.classes is not None and len(own) != spec.classes:
        own = None
    if names is None:
        return own
    names = tuple(names)
    if spec.classes is not None and len(names) != spec.classes:
        raise OptionError(f"class_names holds {len(names)} names, and {spec.name} has {spec.classes} classes.")
    if own is not None and names != own:
        raise OptionError(
            f"class_names are other than those of {spec.name}: given {list(names)}, its own {list(own)}. Leave class_names= out, and name "
            "the classes of the data as the model does; export it again with class_names= if it was not trained on names itself. To "
            "reorder columns use Distributions.align()."
        )
    return names
