"""Models whose parameters come beside them, each made one function of its inputs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from fo_onnx.errors import ModelError, OptionError

from .detect import BoundModel, kind_of, name_of, require_instance
from .references import rewrap, unwrap

_ADVICE: Mapping[str | None, str] = {
    "nnx": "Put them in with nnx.update(model, state) and leave params= out; or give the GraphDef of nnx.split with its state.",
    "equinox": "Leave params= out; or give the two parts of eqx.partition(model, eqx.is_array), the static one as the model.",
    "state": "Leave params= out, or give state.apply_fn's module with params=state.",
}


def bind_params(model: Any, params: Any) -> Any:
    """Return `model` with `params`: see `fo_onnx_jax.plugin.JaxExporter.bind_params`.

    Raises:
        OptionError: The model holds its own parameters, or the parameters do not fit it.
        ModelError: It is a class of modules.
    """
    require_instance(model)
    kind = kind_of(model)
    if kind == "linen":
        return _bind_linen(model, params)
    if kind == "haiku":
        return _bind_haiku(model, params)
    if kind == "graphdef":
        from flax import nnx

        return nnx.merge(model, params)
    if "equinox" in (kind, kind_of(unwrap(model))):
        # The two parts that eqx.partition(model, eqx.is_array) made; the static one may be within jax.vmap.
        combined = _combine(params, model)
        if combined is model:
            combined = rewrap(model, lambda static: _combine(params, static))
        if combined is not model:
            return combined
    # Models that hold their parameters.
    if kind is not None or isinstance(model, BoundModel):
        raise OptionError(
            f"params= was given for {name_of(model)}, which holds its own parameters. {_ADVICE.get(kind, 'Leave params= out.')}"
        )
    # A function of the parameters and the input.
    if kind_of(params) == "state":
        params = params.params
    _require_place(model)
    return functools.partial(model, params)


def require_params(model: Any) -> Any:
    """Return `model`, or if it is a TrainState, its function bound to its parameters.

    Raises:
        ModelError: It is a class of modules, or cannot run without parameters that nobody gave.
    """
    require_instance(model)
    kind = kind_of(model)
    if kind == "linen" and getattr(model, "scope", None) is None:
        raise ModelError(
            f"the flax module {type(model).__name__} holds no parameters: give what its init gave, or what you trained, with "
            "params=; or give module.bind(variables)."
        )
    if kind == "haiku":
        params = "(params, state)" if type(model).__name__ == "TransformedWithState" else "its parameters"
        raise ModelError(
            f"the haiku function {name_of(model)} holds no parameters: give {params}, as its init gave or as you trained, with params=."
        )
    if kind == "graphdef":
        raise ModelError("an nnx.GraphDef holds no parameters: give its state with params=, or the merged module.")
    return _bind_train_state(model) if kind == "state" else model


def _combine(params: Any, static: Any) -> Any:
    """Return an equinox module of both its parts, or `static` if the parts are not of one module."""
    if type(params) is not type(static):
        return static
    import equinox

    return equinox.combine(params, static)


def _bind_train_state(state: Any) -> BoundModel:
    """Return the ``apply_fn`` of a ``flax.training.train_state.TrainState`` bound to its ``params``."""
    module = getattr(state.apply_fn, "__self__", None)
    if kind_of(module) == "linen":
        return _bind_linen(module, state)
    return BoundModel(state, state.params, state.apply_fn, state.apply_fn, skip=1)


def _bind_linen(module: Any, params: Any) -> BoundModel:
    if getattr(module, "scope", None) is not None:
        raise OptionError(
            f"params= was given for {name_of(module)}, which is bound to its own; give the module before its bind()."
        )

    # The parameters of a bound method are those of the call without self.
    return BoundModel(module, _linen_variables(module, params), module.apply, module.__call__)


def _linen_variables(module: Any, params: Any) -> dict[str, Any]:
    """Return what ``module.apply`` takes first, from all collections or from the bare parameters.

    All collections are ``{"params": …, "batch_stats": …}``. The fields of a TrainState beside ``params`` that are called like
    a collection (``batch_stats``, as flax's guide to batch norms adds it) are taken as one.
    """
    if kind_of(params) == "state":
        more = {n: getattr(params, n) for n in ("batch_stats", "constants") if getattr(params, n, None) is not None}
        return {**_linen_variables(module, params.params), **more}
    if not isinstance(params, Mapping):
        raise OptionError(
            f"params= for the flax module {name_of(module)} is a {type(params).__name__}; the dict that its init gave was expected."
        )
    return dict(params) if "params" in params or not params else {"params": params}


def _bind_haiku(transformed: Any, params: Any) -> BoundModel:
    stateful = type(transformed).__name__ == "TransformedWithState"
    if stateful and not (isinstance(params, tuple | list) and len(params) == 2):
        raise OptionError(
            f"params= for the haiku function {name_of(transformed)} is a {type(params).__name__}; it was made by "
            "transform_with_state, so that (params, state) was expected."
        )
    values = tuple(params) if stateful else (params,)
    # After without_apply_rng() the function takes no key of random numbers.
    rng = (None,) if "rng" in inspect.signature(transformed.apply).parameters else ()

    def apply(values: Any, *args: Any, **kwargs: Any) -> Any:
        out = transformed.apply(*values, *rng, *args, **kwargs)
        return out[0] if stateful else out

    return BoundModel(transformed, values, apply, transformed.apply, skip=len(values) + len(rng))


def _require_place(function: Any) -> None:
    """Raise an `OptionError` if a function has no room for parameters beside its input."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return
    if any(p.kind == p.VAR_POSITIONAL for p in parameters):
        return
    places = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(places) < 2:
        name = getattr(unwrap(function), "__name__", type(function).__name__)
        raise OptionError(
            f"params= was given, and {name}({', '.join(places)}) takes {len(places)} argument(s); a function of the parameters and "
            "then the input was expected. Leave params= out if it holds its own."
        )
