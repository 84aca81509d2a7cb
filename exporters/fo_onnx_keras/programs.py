"""A model as a function of flat tensors, whatever it is and whatever backend its tensors are of.

The exported graph and the native runner must call a model alike, so both do it through a `Program`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fo_onnx.calls import call_of, pick_output
from fo_onnx.errors import ModelError, RunError
from fo_onnx.options import ModelOptions, OutputOptions
from fo_onnx.protocols import Inputs
from fo_onnx.spec import ModelSpec, TensorSpec

from .interfaces import (
    Declared,
    Interface,
    entry_point,
    interface_of,
    name_of,
    parameters_of,
    takes_keywords,
    takes_training,
)
from .recognition import held_layers, is_layer

_HALVES = ("float16", "bfloat16")


@dataclass(frozen=True)
class Program:
    """A model with flat tensors in and the one tensor with class scores out.

    Attributes:
        model: The model.
        who: Its name.
        keys: The inputs as the data name them, in order.
        names: The inputs as the model names them, in the same order.
        declared: What the model says of each; without shape and dtype where it says nothing.
        output_name: Which output is meant.
    """

    model: Any
    who: str
    keys: tuple[str, ...]
    names: tuple[str, ...]
    declared: tuple[Declared, ...]
    output_name: str | None
    _arguments: Callable[[Sequence[Any]], tuple[tuple[Any, ...], dict[str, Any]]]

    def __call__(self, tensors: Sequence[Any], is_tensor: Callable[[Any], bool], target: Any = None) -> Any:
        """The raw output (n, …) as a tensor, in evaluation mode.

        Args:
            tensors: One tensor for each of `keys`.
            is_tensor: Whether a value is one of the backend's tensors.
            target: What is called in the model's place.

        Raises:
            OutputError: It gives no tensor, or several of which none is meant.
        """
        args, keywords = self._arguments(tensors)
        # Keras leaves the argument out where a layer does not take it.
        if is_layer(self.model) or takes_training(self.model):
            keywords = {**keywords, "training": False}
        found = (target or _callable(self.model))(*args, **keywords)
        return pick_output(self._named(found), self.output_name, self.who, is_tensor)

    @property
    def layers(self) -> bool:
        """Whether Keras layers are called."""
        return bool(held_layers(self.model))

    @property
    def fixed_rows(self) -> int | None:
        """How many rows the model takes at a time, where its signature says a number."""
        return next((d.rows for d in self.declared if d.rows), None)

    @contextlib.contextmanager
    def no_new_weights(self) -> Iterator[None]:
        """Raises a `ModelError` where a call within the context built layers, which gives them random weights."""
        before = self._weight_count()
        yield
        made = self._weight_count() - before
        if made:
            raise ModelError(
                f"{self.who} was built in part only: it made {made} new weights, with random values, when it was called. Call it on "
                "a batch before its weights are loaded or trained."
            )

    def _weight_count(self) -> int:
        return len({id(w) for layer in held_layers(self.model) for w in layer.variables})

    def arrays(self, inputs: Inputs) -> list[NDArray[Any]]:
        """A batch in the order of `keys`, in the dtypes that the model takes. May be named as data or as model name it."""
        found = [inputs[k] if k in inputs else inputs[n] for k, n in zip(self.keys, self.names, strict=True)]
        return [a.astype(self._dtype(a, d), copy=False) for a, d in zip(found, self.declared, strict=True)]

    def specs(self, example: Inputs) -> tuple[TensorSpec, ...]:
        """The inputs as tensors: shapes as declared, else those of the example with a dynamic batch axis."""
        return tuple(
            TensorSpec(n, str(a.dtype), d.shape or (None, *a.shape[1:]))
            for n, d, a in zip(self.names, self.declared, self.arrays(example), strict=True)
        )

    def spec(self, example: Inputs, output: TensorSpec | None = None) -> ModelSpec:
        """The model's spec."""
        output = output or TensorSpec("output", "float32", ())
        return ModelSpec(inputs=self.specs(example), output=output, name=self.who, framework="keras")

    def _dtype(self, array: NDArray[Any], declared: Declared) -> np.dtype[Any]:
        """The dtype to call with: the declared one where that keeps a number's kind, else the model's own float."""
        name = str(array.dtype)
        if array.dtype.kind == "f":
            is_float = declared.dtype is not None and "float" in declared.dtype
            name = declared.dtype if is_float and declared.dtype else self._float_dtype()
        elif array.dtype.kind in "iu" and declared.dtype is not None and np.dtype(_plain(declared.dtype)).kind in "iu":
            name = declared.dtype
        return np.dtype("float32" if name in _HALVES else name)

    def _float_dtype(self) -> str:
        dtypes = (w.dtype for layer in held_layers(self.model)[:1] for w in layer.weights)
        return next((d for d in dtypes if d == "float64"), "float32")

    def _named(self, found: Any) -> Any:
        """Several outputs of a functional model by the names of their layers."""
        names = getattr(self.model, "output_names", None) if is_layer(self.model) else None
        if names is None or not isinstance(found, list | tuple) or len(names) != len(found):
            return found
        if len(set(names)) < len(names):
            return found
        return dict(zip(names, found, strict=True))


def program(model: Any, keys: Sequence[str], options: ModelOptions, output: OutputOptions) -> Program:
    """`model` as a function of tensors for data with these inputs.

    Raises:
        ModelError: The model cannot be used.
        RunError: It takes other inputs.
    """
    interface, who = interface_of(model), options.model_name or name_of(model)
    if interface is not None:
        return _declaring(model, interface, tuple(keys), who, output.output_name)
    call = call_of(parameters_of(model), keys, takes_keywords=takes_keywords(model))
    declared = tuple(Declared(n, None) for n in call.names)
    return Program(model, who, call.keys, call.names, declared, output.output_name, call.arguments)


def _declaring(model: Any, interface: Interface, keys: tuple[str, ...], who: str, output_name: str | None) -> Program:
    chosen = _matched(interface, keys, who)
    order = [next((k for k, d in chosen.items() if d is i), None) for i in interface.inputs]
    present = tuple(k for k in order if k is not None)

    def arguments(tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = dict(zip(present, tensors, strict=True))
        return interface.arguments([None if k is None else given[k] for k in order])

    declared = tuple(chosen[k] for k in present)
    return Program(model, who, present, tuple(d.name for d in declared), declared, output_name, arguments)


def _matched(interface: Interface, keys: tuple[str, ...], who: str) -> Mapping[str, Declared]:
    """Which declared input each of the data's is: by name, by position, or because there is but one."""
    inputs = interface.inputs
    required = [i for i in inputs if not i.optional]
    by_name = {i.name: i for i in inputs}
    if {i.name for i in required} <= set(keys) <= set(by_name):
        return {k: by_name[k] for k in keys}
    numbered = all(part.isdecimal() for k in keys for part in k.split("."))
    if len(keys) == len(inputs) and (numbered or len(inputs) == 1):
        return dict(zip(keys, inputs, strict=True))
    if numbered and len(keys) == len(required):
        return dict(zip(keys, required, strict=True))
    wanted = ", ".join(i.name + (" (optional)" if i.optional else "") for i in inputs)
    problem = (
        f"running {who} in Keras on {', '.join(map(repr, keys))} failed: it takes {len(inputs)} input"
        f"{'' if len(inputs) == 1 else 's'} ({wanted}), and the data have {len(keys)}"
    )
    if numbered and len(keys) < len(required):
        problem += (
            ". Give the arrays of several inputs as a tuple, in this order, or as a dict by these names: a list is one of samples, "
            "unlike in model.fit"
        )
    raise RunError(problem)


def _callable(model: Any) -> Any:
    return model if is_layer(model) or not hasattr(model, "signatures") else entry_point(model)


def _plain(dtype: str) -> str:
    return "float32" if dtype in _HALVES else dtype
