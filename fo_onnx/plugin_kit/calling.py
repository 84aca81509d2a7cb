"""Calling a model with named arrays, and choosing among its outputs: the same in every framework.

Sources give inputs flat, by name or position; a model takes positional arguments, keywords, or one dict. The exported
graph and the native runner must call it alike, so both do it through this file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..contracts.spec import InputSignature
from ..errors import OutputError


@dataclass(frozen=True)
class Call:
    """The form in which a model takes its inputs.

    Attributes:
        keys: The inputs as the source names them, in order.
        names: The inputs as the model names them, in the same order.
        form: ``"positional"``, ``"keywords"``, or ``"dict"`` for one dict as the only argument.
    """

    keys: tuple[str, ...]
    names: tuple[str, ...]
    form: str

    def arguments(self, tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and keyword arguments for tensors in the order of `keys`."""
        nested = nest(dict(zip(self.keys, tensors, strict=True)))
        if self.form == "positional":
            order = sorted(nested, key=int) if all(k.isdecimal() for k in nested) else nested
            return tuple(nested[k] for k in order), {}
        return ((nested,), {}) if self.form == "dict" else ((), nested)

    def arrays(self, inputs: Mapping[str, Any]) -> list[Any]:
        """Return the arrays of a batch in the order of `keys`; they may be named as the source or as the model names them."""
        return [inputs[k] if k in inputs else inputs[n] for k, n in zip(self.keys, self.names, strict=True)]


def plan_call(
    signature: InputSignature | None,
    keys: Sequence[str],
    *,
    takes_keywords: bool = False,
    runs: Callable[[Call], bool] | None = None,
) -> Call:
    """Return how a model takes inputs with these keys.

    Args:
        signature: The model's parameters, if they can be determined.
        keys: The inputs as the source names them.
        takes_keywords: Whether a model without `signature` takes keywords of any name.
        runs: Returns whether the model takes its inputs in a form. It is asked about a lone column of a name that the model does not know,
            which may be an entry of the dict that it takes, or its one input.
    """
    named = (*signature.required, *signature.optional) if signature is not None else ()
    tops = list(dict.fromkeys(k.split(".")[0] for k in keys))
    if all(t.isdecimal() for t in tops):
        return Call(tuple(keys), tuple(_rename(k, named) for k in keys), "positional")
    if set(tops) <= set(named):
        return Call(tuple(keys), tuple(keys), "keywords")
    call = Call(tuple(keys), tuple(keys), "keywords" if signature is None and takes_keywords else "dict")
    inputs = named if signature is None or not signature.required else signature.required
    if runs is None or len(keys) > 1 or len(inputs) > 1 or runs(call):
        return call
    return Call(tuple(keys), inputs or tuple(keys), "positional")


def pick_output(output: Any, output_name: str | None, model_name: str, is_tensor: Callable[[Any], bool]) -> Any:
    """Return the tensor with class scores among what a model returned.

    Args:
        output: A tensor, or tuples, dicts, dataclasses and transformers' ModelOutputs of them.
        output_name: The one that is meant: a key, a field, a position in a tuple.
        model_name: The model's name, for messages.
        is_tensor: Whether a value is one of the framework's tensors.

    Raises:
        OutputError: There is no tensor, or there are several and none is called ``logits``.
    """
    if is_tensor(output) and output_name is None:
        return output
    outputs = _tensors(output, "", is_tensor)
    if not outputs:
        raise OutputError(
            f"{model_name} returns {_describe(output)}, which holds no tensor; class scores (n, classes) were expected."
        )
    listed = ", ".join(f"{n or 'output'} {tuple(t.shape)}" for n, t in outputs.items())
    if output_name is not None:
        if output_name not in outputs:
            raise OutputError(f"{model_name} has no output {output_name!r}; its outputs are {listed}.")
        return outputs[output_name]
    if "logits" in outputs:
        return outputs["logits"]
    if len(outputs) == 1:
        return next(iter(outputs.values()))
    raise OutputError(
        f"{model_name} has no output called 'logits'; say which one with output_name=. Its outputs are {listed}."
    )


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted keys into nested dicts; children that are all numbered become tuples."""
    groups: dict[str, Any] = {}
    for key, value in flat.items():
        top, _, rest = key.partition(".")
        if rest:
            groups.setdefault(top, {})[rest] = value
        else:
            groups[top] = value
    return {key: _number(nest(value)) if isinstance(value, dict) else value for key, value in groups.items()}


def _number(values: dict[str, Any]) -> Any:
    """Return values as a tuple if their keys are their places."""
    return tuple(values[k] for k in sorted(values, key=int)) if all(k.isdecimal() for k in values) else values


def _tensors(output: Any, path: str, is_tensor: Callable[[Any], bool]) -> dict[str, Any]:
    if is_tensor(output):
        return {path: output}
    items: list[tuple[str, Any]] = []
    if isinstance(output, Mapping):
        items = [(str(k), v) for k, v in output.items()]
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        items = [(f.name, getattr(output, f.name)) for f in dataclasses.fields(output)]
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        items = list(zip(output._fields, output, strict=True))
    elif isinstance(output, list | tuple):
        items = [(str(i), v) for i, v in enumerate(output)]
    return {n: t for k, v in items for n, t in _tensors(v, f"{path}.{k}" if path else k, is_tensor).items()}


def _describe(output: Any) -> str:
    if isinstance(output, list | tuple) and output:
        return f"a {type(output).__name__} of {type(output[0]).__name__}"
    return f"{'an' if type(output).__name__[0] in 'aeiou' else 'a'} {type(output).__name__}"


def _rename(key: str, parameters: Sequence[str]) -> str:
    top, _, rest = key.partition(".")
    name = parameters[int(top)] if int(top) < len(parameters) else f"input_{top}"
    return f"{name}.{rest}" if rest else name
