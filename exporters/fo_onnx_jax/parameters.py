"""Models whose parameters come beside them, each made one function of its inputs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from fo_onnx.errors import OptionError

from .models import Bound, kind_of, name_of, require_instance
from .references import unwrapped


def bound(model: Any, params: Any) -> Any:
    """`model` with `params`: see `fo_onnx_jax.export.JaxExporter.bound`.

    Raises:
        OptionError: The model holds its own parameters, or the parameters are none of it.
        ModelError: It is a class of modules.
    """
    require_instance(model)
    kind = kind_of(model)
    if kind == "linen":
        return _bound_linen(model, params)
    if kind == "haiku":
        return _bound_haiku(model, params)
    if kind == "graphdef":
        from flax import nnx

        return nnx.merge(model, params)
    if kind == "equinox" and type(params) is type(model):
        # What eqx.partition(model, eqx.is_array) made two of.
        import equinox

        return equinox.combine(params, model)
    inner = unwrapped(model)
    if kind_of(inner) == "equinox" and inner is not model and type(params) is type(inner):
        # The like within jax.vmap.
        import equinox

        from .evaluation import replaced

        return replaced(model, inner, equinox.combine(params, inner))
    if kind is not None or isinstance(model, Bound):
        raise OptionError(
            f"params= was given for {name_of(model)}, which holds its own parameters. {_INSTEAD.get(kind, 'Leave params= out.')}"
        )
    if kind_of(params) == "state":
        params = params.params
    _require_place(model)
    return functools.partial(model, params)


def of_train_state(state: Any) -> Bound:
    """The model within a ``flax.training.train_state.TrainState``: its ``apply_fn`` on its ``params``."""
    module = getattr(state.apply_fn, "__self__", None)
    if kind_of(module) == "linen":
        return _bound_linen(module, state)
    return Bound(state, state.params, state.apply_fn, state.apply_fn, skip=1)


_INSTEAD: Mapping[str | None, str] = {
    "nnx": "Put them in with nnx.update(model, state) and leave params= out; or give the GraphDef of nnx.split with its state.",
    "equinox": "Leave params= out; or give the two parts of eqx.partition(model, eqx.is_array), the static one as the model.",
    "state": "Leave params= out, or give state.apply_fn's module with params=state.",
}


def _bound_linen(module: Any, params: Any) -> Bound:
    if getattr(module, "scope", None) is not None:
        raise OptionError(
            f"params= was given for {name_of(module)}, which is bound to its own; give the module before its bind()."
        )
    variables = _variables(module, params)

    def apply(variables: Any, *args: Any, **kwargs: Any) -> Any:
        return module.apply(variables, *args, **kwargs)

    # The parameters of a bound method are those of the call without self.
    return Bound(module, variables, apply, module.__call__)


def _variables(module: Any, params: Any) -> dict[str, Any]:
    """What ``module.apply`` takes first, of all collections (``{"params": …, "batch_stats": …}``) or of the bare parameters.

    The fields of a TrainState beside ``params`` that are called like a collection (``batch_stats``, as flax's guide to batch
    norms adds it) are taken for one.
    """
    if kind_of(params) == "state":
        more = {n: getattr(params, n) for n in ("batch_stats", "constants") if getattr(params, n, None) is not None}
        return {**_variables(module, params.params), **more}
    if not isinstance(params, Mapping):
        raise OptionError(
            f"params= for the flax module {name_of(module)} is a {type(params).__name__}; the dict that its init gave was expected."
        )
    return dict(params) if "params" in params or not params else {"params": params}


def _bound_haiku(transformed: Any, params: Any) -> Bound:
    stateful = type(transformed).__name__ == "TransformedWithState"
    if stateful and not (isinstance(params, tuple | list) and len(params) == 2):
        raise OptionError(
            f"params= for the haiku function {name_of(transformed)} is a {type(params).__name__}; it was made by "
            "transform_with_state, so that (params, state) was expected."
        )
    given = tuple(params) if stateful else (params,)
    # without_apply_rng() took it away already.
    leading = (None,) if "rng" in inspect.signature(transformed.apply).parameters else ()

    def apply(given: Any, *args: Any, **kwargs: Any) -> Any:
        found = transformed.apply(*given, *leading, *args, **kwargs)
        return found[0] if stateful else found

    return Bound(transformed, given, apply, transformed.apply, skip=len(given) + len(leading))


def _require_place(function: Any) -> None:
    """Raises an `OptionError` where a function has no room for parameters beside its input."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return
    if any(p.kind == p.VAR_POSITIONAL for p in parameters):
        return
    places = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(places) < 2:
        who = getattr(unwrapped(function), "__name__", type(function).__name__)
        raise OptionError(
            f"params= was given, and {who}({', '.join(places)}) takes {len(places)} argument(s); a function of the parameters and "
            "then the input was expected. Leave params= out if it holds its own."
        )
