"""What is a JAX model, what it is called, and which inputs it takes; told without importing jax."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from types import ModuleType
from typing import Any

from fo_onnx import introspection
from fo_onnx.bytecode import is_library
from fo_onnx.calls import Call
from fo_onnx.calls import call_of as _call_of
from fo_onnx.errors import ModelError
from fo_onnx.spec import InputSignature

from .references import OTHERS, PACKAGES, is_array, packages_of, reachable, unwrapped

MODES = {
    "train": False, "training": False, "is_training": False, "deterministic": True, "inference": True,
    "use_running_average": True,
}  # fmt: skip
"""Arguments that choose between training and inference, and the value that means inference."""
_SEARCHED = 2000
"""So many values are looked at to tell whether a function is one over JAX arrays."""


@dataclasses.dataclass(frozen=True, eq=False)
class Bound:
    """A model whose parameters were given beside it, as one function of its inputs.

    Attributes:
        model: The model as it was given.
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
        """What the model gives for its inputs."""
        return self.apply(self.params, *args, **kwargs)


def accepts(model: Any) -> bool:
    """Whether `model` is JAX's: see `fo_onnx_jax.export.JaxExporter.accepts`."""
    if "jax" in sys.modules and is_module_class(model):
        # So that its user is told to make one of it.
        return True
    if "jax" not in sys.modules or isinstance(model, type | ModuleType) or is_array(model):
        return False
    if isinstance(model, Bound) or kind_of(model) is not None:
        return True
    if not callable(model) or packages_of(model) & {*OTHERS}:
        return False
    found = False
    for value in reachable(model, _SEARCHED):
        packages = packages_of(value)
        if "keras" in packages and not isinstance(value, ModuleType):
            # Its own exporter knows what to do with a Keras model, also where that computes in JAX.
            return False
        found = found or bool(packages & {*PACKAGES}) or is_array(value) or _is_of_jax(value)
    return found


def kind_of(model: Any) -> str | None:
    """``"linen"``, ``"nnx"``, ``"graphdef"``, ``"equinox"``, ``"haiku"`` or ``"state"`` (a TrainState); else ``None``."""
    if packages_of(model) & {*OTHERS}:
        return None
    return _kind_of_class(type(model))


def _kind_of_class(kind: type) -> str | None:
    for cls in kind.__mro__:
        # In which file of its package a class is changes from version to version.
        package = ".".join(str(cls.__module__).split(".")[: 2 if str(cls.__module__).startswith("flax.") else 1])
        found = _KINDS.get((package, cls.__name__))
        if found is not None:
            return found
    return None


_KINDS = {
    ("flax.linen", "Module"): "linen",
    ("flax.nnx", "Module"): "nnx",
    ("flax.nnx", "GraphDef"): "graphdef",
    ("flax.training", "TrainState"): "state",
    ("equinox", "Module"): "equinox",
    ("haiku", "Transformed"): "haiku",
    ("haiku", "TransformedWithState"): "haiku",
}
"""What the classes of the packages are, by package and name."""


def is_module_class(model: Any) -> bool:
    """Whether `model` is a class of modules of flax or equinox, where one of them was meant."""
    return isinstance(model, type) and _kind_of_class(model) in ("linen", "nnx", "equinox")


def require_instance(model: Any) -> None:
    """Raises a `ModelError` where a model is a class of modules."""
    if is_module_class(model):
        raise ModelError(
            f"{model.__name__} is a class, and a module was expected: make an instance: {model.__name__}()."
        )


def require_parameters(model: Any) -> None:
    """Raises a `ModelError` where a model cannot run without parameters that are given beside it."""
    require_instance(model)
    kind = kind_of(model)
    if kind == "linen" and getattr(model, "scope", None) is None:
        raise ModelError(
            f"the flax module {type(model).__name__} holds no parameters: give what its init gave, or what you trained, with "
            "params=; or give module.bind(variables)."
        )
    if kind == "haiku":
        what = "(params, state)" if type(model).__name__ == "TransformedWithState" else "its parameters"
        raise ModelError(
            f"the haiku function {name_of(model)} holds no parameters: give {what}, as its init gave or as you trained, with params=."
        )
    if kind == "graphdef":
        raise ModelError("an nnx.GraphDef holds no parameters: give its state with params=, or the merged module.")


def name_of(model: Any) -> str:
    """The model's name for messages and files: its class, or its function; ``"model"`` where that has none."""
    if isinstance(model, Bound):
        return name_of(model.model)
    kind = kind_of(model)
    if kind == "haiku":
        # Under this name haiku keeps the function that was transformed (haiku._src.transform.get_original_fn).
        return name_of(getattr(model.apply, "_original_fn", model.apply))
    if kind == "state":
        return name_of(model.apply_fn)
    inner = unwrapped(model)
    if inspect.ismethod(inner) and kind_of(inner.__self__) is not None:
        return name_of(inner.__self__)
    name = str(getattr(inner, "__name__", type(inner).__name__))
    return name if name.isidentifier() else "model"


def settled(model: Any) -> Any:
    """`model`, or where that is a TrainState its function bound to its parameters.

    Raises:
        ModelError: Its parameters are missing.
    """
    require_parameters(model)
    if kind_of(model) != "state":
        return model
    from .parameters import of_train_state

    return of_train_state(model)


def signature_of(model: Any) -> InputSignature | None:
    """The names of the model's inputs; arguments that choose between training and inference are not among them.

    Raises:
        ModelError: Its parameters are missing.
    """
    model = settled(model)
    inner, skip = (model.inner, model.skip) if isinstance(model, Bound) else (model, 0)
    found = introspection.signature_of(_told(inner))
    if found is None:
        return None
    names = (*found.required, *found.optional)[:skip]
    modes = mode_arguments(model)

    required = tuple(n for n in found.required if n not in names and n not in modes)
    optional = tuple(n for n in found.optional if n not in names and n not in modes and n not in _NO_INPUTS)
    return InputSignature(required, optional)


_NO_INPUTS = ("key", "rng", "rngs")
"""Optional arguments of modules that ask for random numbers, which a model in evaluation mode does not."""


def mode_arguments(model: Any) -> dict[str, bool]:
    """The arguments that put a call of a settled `model` into inference: those of `MODES` that it has.

    An argument whose default is ``None`` is left alone: a flax module that merges it with an attribute of its own
    (``nn.merge_param``) refuses to be told twice.
    """
    try:
        parameters = inspect.signature(_told(model.inner if isinstance(model, Bound) else model)).parameters
    except (TypeError, ValueError):
        return {}
    return {n: MODES[n] for n, p in parameters.items() if n in MODES and p.default is not None}


def call_of(model: Any, keys: list[str]) -> Call:
    """How `model` takes inputs with these keys."""
    model = settled(model)
    inner = model.inner if isinstance(model, Bound) else model
    signature = signature_of(model)
    given = {k.partition(".")[0] for k in keys}
    if signature is not None and all(k.isdecimal() for k in given) and len(signature.required) > len(given):
        raise ModelError(
            f"{name_of(model)}({', '.join(signature.required)}) takes {len(signature.required)} arguments, and the data have "
            f"{len(given)} input(s). Give its parameters, where the first argument stands for them, with params=."
        )
    return _call_of(signature, keys, takes_keywords=introspection.takes_keywords(_told(inner)))


def _told(function: Any) -> Any:
    """A callable whose signature tells how `function` is called, also where that is a wrapper with arguments of its own.

    ``functools.wraps`` makes `inspect.signature` tell those of what is wrapped, which are right for a wrapper that passes on
    whatever it gets (``*args``), as ``jax.vmap`` does.
    """
    call = function
    if not inspect.isroutine(function) and not isinstance(function, type) and kind_of(function) is None:
        # An object with a __call__ of the user's own, which may have been through functools.update_wrapper.
        found = inspect.getattr_static(type(function), "__call__", None)
        call = function.__call__ if inspect.isfunction(found) and not is_library(found.__module__ or "") else function
    try:
        own = inspect.signature(call, follow_wrapped=False)
    except (TypeError, ValueError):
        return function
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in own.parameters.values()):
        return function

    def told() -> None: ...

    told.__signature__ = own  # type: ignore[attr-defined]
    return told


def _is_of_jax(value: Any) -> bool:
    """Whether a value is a function that a package of JAX defines, such as the wrapper that ``jax.vmap`` makes."""
    module = getattr(value, "__globals__", {}).get("__name__") if inspect.isfunction(value) else None
    return str(module).partition(".")[0] in PACKAGES
