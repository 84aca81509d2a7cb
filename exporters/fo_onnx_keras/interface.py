"""The interface of a model: names, ranks, shapes and dtypes of its inputs, and the form in which it takes them.

Keras' functional models declare everything; subclassed ones keep the shapes that they were built with; functions of
TensorFlow may have a signature. A model that declares nothing is called by the names of its parameters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fo_onnx.contracts.batch import Inputs
from fo_onnx.contracts.spec import InputSignature
from fo_onnx.errors import ModelError
from fo_onnx.plugin_kit import captured

from .detect import TENSORFLOW, backend_of, is_graph_function, is_layer, is_legacy_layer, is_trackable, layers_of

DEFAULT_SIGNATURE = "serving_default"
"""The signature that TensorFlow Serving takes if none is named (documentation of tf.saved_model)."""
_UNNAMED = re.compile(r"(input_layer|keras_tensor)(_\d+)?")
_UNNAMED_LEGACY = re.compile(r"input_\d+")
TEXT = "string"
"""The dtype of text, as Keras and TensorFlow call it."""
_TEXT_LAYERS = ("TextVectorization", "StringLookup")
_NOT_INPUTS = ("training", "mask")
"""Parameters of ``call`` that Keras fills in (Keras' documentation of `Layer.call`)."""


@dataclass(frozen=True)
class Declared:
    """An input as a model declares it.

    Attributes:
        name: Its name, with the path to it in nested inputs, joined by dots.
        rank: Its number of axes, the batch axis included; ``None`` if unknown.
        dtype: Its numpy dtype by name; ``None`` if the model takes several.
        shape: Its shape, with ``None`` for the batch and for other dynamic axes; ``None`` if nothing says it.
        optional: Whether it may be left out.
        rows: How many rows it takes at a time, if the number is fixed.
    """

    name: str
    rank: int | None
    dtype: str | None = None
    shape: tuple[int | None, ...] | None = None
    optional: bool = False
    rows: int | None = None


@dataclass(frozen=True)
class Interface:
    """The inputs of a model, and how they are put together for a call.

    Attributes:
        inputs: The inputs in order.
        structure: Of ``keras.Input`` or anything else as leaves, for a model that takes one argument of this structure;
            ``None`` for a function that takes `positional` arguments and the others by name.
        positional: How many of the inputs go by position if there is no structure.
    """

    inputs: tuple[Declared, ...]
    structure: Any = None
    positional: int = 0

    def arguments(self, tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and keyword arguments for tensors in the order of `inputs`; ``None`` for those left out."""
        if self.structure is not None:
            from keras import tree

            return (tree.pack_sequence_as(self.structure, list(tensors)),), {}
        by_name = zip(self.inputs[self.positional :], tensors[self.positional :], strict=True)
        return tuple(tensors[: self.positional]), {i.name: t for i, t in by_name}


def interface_of(model: Any) -> Interface | None:
    """Return the inputs that `model` declares, or ``None`` if it declares nothing.

    Raises:
        ModelError: It is a Keras model that was never built, or one that keeps state from batch to batch.
    """
    require_usable(model)
    if is_layer(model) or is_legacy_layer(model):
        # A Sequential or functional model has inputs; so has a subclass of either that overrides nothing.
        return _of_functional(model) if getattr(model, "inputs", None) is not None else _of_subclassed(model)
    if is_graph_function(model) or is_trackable(model):
        return _of_function(entry_point(model))
    return None


def signature_of(model: Any) -> InputSignature | None:
    """Return the names and ranks of the inputs of a model; see `fo_onnx.contracts.Exporter.signature`."""
    interface = interface_of(model)
    if interface is None:
        parameters = parameters_of(model)
        return None if parameters is None else replace(parameters, takes_text=_takes_text(model, ()))
    # Ranks tell a batch from a sample, so they count only if all are known.
    required = [i for i in interface.inputs if not i.optional]
    ranks = tuple(i.rank for i in required if i.rank is not None)
    return InputSignature(
        tuple(i.name for i in required),
        tuple(i.name for i in interface.inputs if i.optional),
        ranks if len(ranks) == len(required) else None,
        _takes_text(model, interface.inputs),
    )


def reason_of_text(example: Inputs) -> str | None:
    """Return why a model over text is no ONNX file, if the rows hold text."""
    name = next((n for n, array in example.items() if array.dtype.kind in "OUS"), None)
    return None if name is None else f"its input {name!r} is text, and the converter has no operators for text"


def _takes_text(model: Any, inputs: Sequence[Declared]) -> bool:
    """Return whether inputs may be text, which only TensorFlow has tensors of."""
    # A model that declares nothing shows it by its layers.
    holds_text = any(i.dtype == TEXT for i in inputs) or any(type(v).__name__ in _TEXT_LAYERS for v in layers_of(model))
    return holds_text and backend_of(model) == TENSORFLOW


def callee_of(model: Any) -> Any:
    """Return the Python function that is called, as far as there is one."""
    if is_layer(model) or is_legacy_layer(model):
        return model.call
    return getattr(entry_point(model), "python_function", entry_point(model))


def parameters_of(model: Any) -> InputSignature | None:
    """Return the names of the parameters of what is called, without those that are no inputs."""
    signature = captured.signature_of(callee_of(model))
    if signature is None:
        return None
    hidden = _NOT_INPUTS if is_layer(model) or is_legacy_layer(model) else _NOT_INPUTS[:1]
    return InputSignature(
        tuple(n for n in signature.required if n not in hidden), tuple(n for n in signature.optional if n not in hidden)
    )


def takes_training(model: Any) -> bool:
    """Return whether what is called has a parameter ``training``."""
    signature = captured.signature_of(callee_of(model))
    return signature is not None and "training" in (*signature.required, *signature.optional)


def name_of(model: Any) -> str:
    """Return the name of a model for messages and files: its class, or the name of the function."""
    if is_graph_function(model):
        function = getattr(model, "python_function", model)
        return str(getattr(function, "__name__", type(model).__name__)).strip("<>")
    if is_layer(model) or is_trackable(model):
        return "SavedModel" if type(model).__name__ == "_UserObject" else type(model).__name__
    return str(getattr(model, "__qualname__", type(model).__name__))


def entry_point(model: Any) -> Any:
    """Return what of a ``tf.Module``, a SavedModel or a function is called.

    Raises:
        ModelError: A SavedModel with several signatures, none of which is the default.
    """
    signatures = getattr(model, "signatures", None) if is_trackable(model) else None
    if not signatures:
        return model if is_graph_function(model) else getattr(model, "__call__", model)  # noqa: B004
    names = list(signatures)
    if DEFAULT_SIGNATURE not in names and len(names) > 1:
        raise ModelError(
            f"the SavedModel has the signatures {', '.join(map(repr, names))}, none of which is {DEFAULT_SIGNATURE!r}. Choose one: "
            f"{_choose_signature(names[0])}."
        )
    return signatures[DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in names else names[0]]


def advise_signature(model: Any) -> str:
    """Return how another signature of a SavedModel is chosen, with their names; empty if it has no other."""
    names = (
        [n for n in getattr(model, "signatures", None) or () if n != DEFAULT_SIGNATURE] if is_trackable(model) else []
    )
    if not names:
        return ""
    return f" Its other signatures are {', '.join(map(repr, names))}. To choose one: {_choose_signature(names[0])}."


def _choose_signature(name: str) -> str:
    # What was loaded owns the variables of its signatures.
    return f"loaded = tf.saved_model.load(path), and give loaded.signatures[{name!r}] as the model"


def require_usable(model: Any) -> None:
    """Raise a `ModelError` for a model that was never built, is stateful, or has lost its variables."""
    try:
        _ = model.variables if is_graph_function(model) and hasattr(model, "structured_input_signature") else None
    except AssertionError as err:  # a graph refers to its variables weakly
        raise ModelError(
            "the variables of the TensorFlow function are gone, since what owned them was deleted. Keep what was loaded for as long as "
            "its signature is used: loaded = tf.saved_model.load(path), then loaded.signatures[…]."
        ) from err
    is_legacy = is_legacy_layer(model)
    layers = list(model._flatten_layers()) if is_legacy else layers_of(model)
    for layer in layers[:1] if is_layer(model) or is_legacy else ():
        if not layer.built:
            raise ModelError(
                f"the Keras model {type(layer).__name__} was never built: it has no weights yet, and those that it would be given now "
                "are random. Load its weights, or train it; a model without weights is built by calling it on a batch once, or by "
                "beginning it with keras.Input(shape)."
            )
    stateful = [layer.name for layer in layers if getattr(layer, "stateful", False)]
    if stateful:
        raise ModelError(
            f"the layer {stateful[0]!r} is stateful: what it gives for a row depends on the batches before it. Make the model with "
            "stateful=False and set the same weights."
        )


def _of_functional(model: Any) -> Interface:
    from keras import Sequential, tree

    # A Sequential has an `input` only after a call.
    structure = model.inputs[0] if isinstance(model, Sequential) else model.input
    is_legacy = is_legacy_layer(model)
    paths = [".".join(map(str, path)) for path, _ in tree.flatten_with_path(structure)]
    by_name = isinstance(structure, dict)
    inputs = []
    for path, tensor in zip(paths, tree.flatten(structure), strict=True):
        # A Sequential that was built by a call has that batch's shape, and takes others.
        shape = (None, *tensor.shape[1:]) if tensor.shape[0] is None else None
        layer = tensor._keras_history.layer if is_legacy else tensor._keras_history.operation
        optional = bool(getattr(layer, "optional", False))
        dtype = tensor.dtype.name if is_legacy else tensor.dtype
        inputs.append(Declared(path if by_name else layer.name, len(tensor.shape), dtype, shape, optional))
    if len(inputs) == 1 and (_UNNAMED_LEGACY if is_legacy else _UNNAMED).fullmatch(inputs[0].name):
        # Keras counts the layers of a process: the same model would have another input's name tomorrow.
        inputs = [replace(inputs[0], name="input")]
    return Interface(tuple(inputs), structure)


def _of_subclassed(model: Any) -> Interface | None:
    from keras import tree

    parameters = parameters_of(model)
    built = getattr(model, "_build_shapes_dict", None)
    if not built or parameters is None or len(parameters.required) != 1:
        # Keras keeps the shape of the first argument alone.
        return None
    structure = tree.map_shape_structure(len, next(iter(built.values())))
    (parameter,) = parameters.required
    inputs = []
    for path, rank in tree.flatten_with_path(structure):
        names = [str(p) for p in path] if isinstance(structure, dict) else [parameter, *map(str, path)]
        inputs.append(Declared(".".join(names), rank))
    return Interface(tuple(inputs), structure)


def _of_function(function: Any) -> Interface | None:
    """Return the signature of a `ConcreteFunction`, or the one that a ``tf.function`` was made or loaded with."""
    traces = getattr(function, "concrete_functions", None)
    if traces is not None and not hasattr(function, "python_function"):
        function = traces[0] if len(traces) == 1 else function
    if hasattr(function, "structured_input_signature"):
        args, keywords = function.structured_input_signature
        return _of_specs([a for a in args if a is not None], keywords)
    specs = getattr(function, "input_signature", None)
    if not specs:
        return None
    names = parameters_of(function)
    interface = _of_specs(list(specs), {})
    if interface is None or names is None:
        return interface
    # A signature's own names are those of its Python parameters.
    inputs = zip((*names.required, *names.optional), interface.inputs, strict=False)
    return Interface(tuple(replace(d, name=n) for n, d in inputs), None, interface.positional)


def _of_specs(args: list[Any], keywords: dict[str, Any]) -> Interface | None:
    import tensorflow as tf

    specs = [*args, *keywords.values()]
    if not specs or not all(isinstance(s, tf.TensorSpec) for s in specs):
        return None
    names = [*(s.name or f"input_{i}" for i, s in enumerate(args)), *keywords]
    return Interface(tuple(map(_of_spec, names, specs)), None, len(args))


def _of_spec(name: str, spec: Any) -> Declared:
    shape = None if spec.shape.rank is None else (None, *spec.shape.as_list()[1:])
    rows = spec.shape[0] if spec.shape.rank else None
    return Declared(name, spec.shape.rank, spec.dtype.name, shape, rows=rows)
