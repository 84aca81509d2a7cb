"""JAX models: how they are recognised, of which kind they are, and what they are called. Nothing here imports jax."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from types import ModuleType
from typing import Any

from fo_onnx.errors import ModelError

from .references import OTHER_FRAMEWORKS, PACKAGES, is_array, packages_of, unwrap, walk

_SEARCH_LIMIT = 2000
"""So many values are looked at to decide whether a function is one over JAX arrays."""
_KINDS = {
    ("flax.linen", "Module"): "linen",
    ("flax.nnx", "Module"): "nnx",
    ("flax.nnx", "GraphDef"): "graphdef",
    ("flax.training", "TrainState"): "state",
    ("equinox", "Module"): "equinox",
    ("haiku", "Transformed"): "haiku",
    ("haiku", "TransformedWithState"): "haiku",
}
"""The kinds of the packages' classes, by package and name."""


@dataclasses.dataclass(frozen=True, eq=False)
class BoundModel:
    """A model with parameters that are no part of it, as one function of its inputs.

    Attributes:
        model: The model as the user gave it.
        params: Its parameters, as `apply` takes them.
        apply: Takes `params` and then the inputs.
        inner: The function whose parameters are the model's inputs.
        skip: How many of the first parameters of `inner` are no inputs.
    """

    model: Any
    params: Any
    apply: Any
    inner: Any
    skip: int = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the model gives for its inputs."""
        return self.apply(self.params, *args, **kwargs)


def accepts(model: Any) -> bool:
    """Return whether `model` is JAX's: see `fo_onnx_jax.plugin.JaxExporter.accepts`."""
    if "jax" not in sys.modules:
        return False
    if is_module_class(model):
        # So that its user reads that an instance was expected.
        return True
    if isinstance(model, type | ModuleType) or is_array(model):
        return False
    if isinstance(model, BoundModel) or kind_of(model) is not None:
        return True
    if not callable(model) or packages_of(model) & {*OTHER_FRAMEWORKS}:
        return False
    # A function is one of JAX if something that it holds or names is.
    of_jax = False
    for value in walk(model, _SEARCH_LIMIT):
        packages = packages_of(value)
        if "keras" in packages and not isinstance(value, ModuleType):
            # Keras' own exporter knows what to do with its models, even if they compute in JAX.
            return False
        of_jax = of_jax or bool(packages & {*PACKAGES}) or is_array(value) or _is_function_of_jax(value)
    return of_jax


def kind_of(model: Any) -> str | None:
    """Return ``"linen"``, ``"nnx"``, ``"graphdef"``, ``"equinox"``, ``"haiku"`` or ``"state"`` (a TrainState); else ``None``."""
    return None if packages_of(model) & {*OTHER_FRAMEWORKS} else _kind_of_class(type(model))


def is_module_class(model: Any) -> bool:
    """Return whether `model` is a class of modules of flax or equinox."""
    return isinstance(model, type) and _kind_of_class(model) in ("linen", "nnx", "equinox")


def require_instance(model: Any) -> None:
    """Raise a `ModelError` if a model is a class of modules."""
    if is_module_class(model):
        raise ModelError(
            f"{model.__name__} is a class, and a module was expected: make an instance: {model.__name__}()."
        )


def name_of(model: Any) -> str:
    """Return the name of a model's class or function for messages and files; ``"model"`` if it has none."""
    if isinstance(model, BoundModel):
        return name_of(model.model)
    kind = kind_of(model)
    if kind == "haiku":
        # Under this name haiku keeps the function that was transformed (haiku._src.transform.get_original_fn).
        return name_of(getattr(model.apply, "_original_fn", model.apply))
    if kind == "state":
        return name_of(model.apply_fn)
    inner = unwrap(model)
    if inspect.ismethod(inner) and kind_of(inner.__self__) is not None:
        return name_of(inner.__self__)
    name = str(getattr(inner, "__name__", type(inner).__name__))
    return name if name.isidentifier() else "model"


def _kind_of_class(cls: type) -> str | None:
    for base in cls.__mro__:
        # In which file of its package a class is changes from version to version.
        package = ".".join(str(base.__module__).split(".")[: 2 if str(base.__module__).startswith("flax.") else 1])
        kind = _KINDS.get((package, base.__name__))
        if kind is not None:
            return kind
    return None


def _is_function_of_jax(value: Any) -> bool:
    """Return whether a value is a function that a package of JAX defines, such as the wrapper that ``jax.vmap`` makes."""
    module = getattr(value, "__globals__", {}).get("__name__") if inspect.isfunction(value) else None
    return str(module).partition(".")[0] in PACKAGES
