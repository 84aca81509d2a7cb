"""What a model takes and gives, as plain data that every room can read.

Nothing here knows a framework, a file or a session.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

OutputKind = Literal["logits", "probs", "log_probs", "binary_logits", "binary_probs"]
OUTPUT_KINDS: tuple[str, ...] = get_args(OutputKind)
LOGIT_KINDS: tuple[str, ...] = ("logits", "log_probs", "binary_logits")
"""The kinds on which a temperature acts, and of which logits can be kept."""
PROBABILITY_KINDS: tuple[str, ...] = ("probs", "log_probs", "binary_probs")
"""The kinds whose rows must be probabilities, or the logarithms of probabilities."""
DTYPES = frozenset(
    ["bool", "str", "float16", "float32", "float64", "bfloat16", "complex64", "complex128", "float4_e2m1fn"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (2, 4, 8, 16, 32, 64)]
    + [f"float8_{kind}" for kind in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")]
)
"""The element types that a tensor of a model can have, by numpy's (and ml_dtypes') names."""
MOST_CLASSES = 10_000_000
MOST_ROWS = 1_000_000
MOST_ELEMENTS = 2**31
"""Bounds on what a spec out of a file may ask for: classes, a batch that is built in, numbers in one tensor of a batch."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output tensor of a model.

    Attributes:
        name: Its name in the model.
        dtype: Its numpy dtype by name, for example ``"float32"``.
        shape: Its shape with the batch axis first; ``None`` stands for a dynamic axis.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    @property
    def rank(self) -> int:
        """Return the number of axes, the batch axis included."""
        return len(self.shape)

    def __str__(self) -> str:
        axes = ", ".join(
            "n" if i == 0 and d is None else "?" if d is None else str(d) for i, d in enumerate(self.shape)
        )
        return f"{self.name}: {self.dtype} ({axes})"


@dataclass(frozen=True)
class InputSignature:
    """The inputs that a model takes, as far as they are known before it has run.

    Sources use it to tell inputs from labels and samples from batches.

    Attributes:
        required: Names of the inputs that must be given, in order.
        optional: Names of the inputs that may be given, in order.
        ranks: Number of axes of each required input, the batch axis included; ``None`` where unknown.
        takes_text: Whether inputs may be text; if not, sources refuse it.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    ranks: tuple[int, ...] | None = None
    takes_text: bool = False

    @property
    def rows_are_texts(self) -> bool:
        """Return whether a row is one text, as it is to what cuts it into words."""
        return self.takes_text and self.ranks == (1,)


@dataclass(frozen=True)
class ModelSpec:
    """What a classifier takes and what its output means.

    Attributes:
        inputs: Its input tensors, in order.
        output: Its raw output tensor, before the probability head.
        output_kind: What the raw output means; ``None`` while that is not decided.
        classes: Number of classes; ``None`` while unknown.
        class_names: One name per class, in the order of the columns.
        temperature: The temperature T of softmax(z / T).
        name: A name for the model.
        framework: Where it came from: ``"torch"``, ``"onnx"``, ``"callable"``, …
    """

    inputs: tuple[TensorSpec, ...]
    output: TensorSpec
    output_kind: OutputKind | None = None
    classes: int | None = None
    class_names: tuple[str, ...] | None = None
    temperature: float = 1.0
    name: str = "model"
    framework: str = "onnx"

    @property
    def signature(self) -> InputSignature:
        """Return the inputs as sources need them."""
        return InputSignature(
            tuple(i.name for i in self.inputs),
            (),
            tuple(i.rank for i in self.inputs),
            takes_text=any(i.dtype == "str" for i in self.inputs),
        )

    @property
    def fixed_batch(self) -> int | None:
        """Return the batch size that is built into the model, or ``None`` if the batch axis of every input is dynamic."""
        sizes = {i.shape[0] for i in self.inputs if i.shape} - {None}
        return max((s for s in sizes if s is not None), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON types; `from_dict` is its inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelSpec:
        """Return the spec that `to_dict` was called on.

        Raises:
            ValueError: What `data` holds is of a type, or in a range, that no spec has; the message says what.
            KeyError: Something is missing.
        """
        inputs = tuple(_tensor(d) for d in _list(data["inputs"], "inputs"))
        if not inputs or len({i.name for i in inputs}) < len(inputs):
            raise ValueError(f"inputs are {[i.name for i in inputs]}; one or more of different names were expected")
        output, kind, names = _tensor(data["output"]), data.get("output_kind"), data.get("class_names")
        if kind not in (None, *OUTPUT_KINDS):
            raise ValueError(f"output_kind is {kind!r:.100}; one of {', '.join(OUTPUT_KINDS)} was expected")
        classes = data.get("classes")
        if classes is not None and not (type(classes) is int and 1 <= classes <= MOST_CLASSES):
            raise ValueError(f"classes is {classes!r:.100}; a whole number up to {MOST_CLASSES} was expected")
        counts = {c for c in (classes, output_classes(output.shape)) if c is not None}
        if names is not None:
            names = tuple(_text(n, "a class name") for n in _list(names, "class_names"))
            if len(set(names)) < len(names):
                raise ValueError("two classes have one name")
            counts.add(len(names))
        if len(counts) > 1:
            raise ValueError(
                f"classes are {classes}, in an output of shape {output.shape}, "
                f"with {'no' if names is None else len(names)} names; one number was expected"
            )
        temperature = data.get("temperature", 1.0)
        if type(temperature) not in (int, float) or not 0 < temperature < math.inf:
            raise ValueError(f"temperature is {temperature!r:.100}; a positive number was expected")
        return cls(
            inputs=inputs,
            output=output,
            output_kind=kind,
            classes=classes,
            class_names=names,
            temperature=float(temperature),
            name=_text(data.get("name", "model"), "name"),
            framework=_text(data.get("framework", "onnx"), "framework"),
        )


def output_classes(shape: tuple[int | None, ...]) -> int | None:
    """Return the number of classes that a raw output of `shape` stands for; ``None`` if the shape does not tell."""
    shape = drop_unit_axes(shape)
    if len(shape) not in (1, 2):
        return None
    return 2 if len(shape) == 1 or shape[1] == 1 else shape[1]


def drop_unit_axes(shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """Return the shape (n, k) that a raw output of (n, 1, k) or (n, k, 1, 1) is taken for; any other is returned as it is."""
    if len(shape) <= 2:
        return shape
    classes = [d for d in shape[1:] if d != 1] or [1]
    return (shape[0], *classes) if len(classes) == 1 and None not in classes else shape


def _tensor(data: Any) -> TensorSpec:
    name, dtype = _text(data["name"], "the name of a tensor"), data["dtype"]
    if type(dtype) is not str or dtype not in DTYPES:
        raise ValueError(f"{name!r:.100} has the dtype {dtype!r:.100}, which is none")
    shape = tuple(_list(data["shape"], "a shape"))
    if not all(d is None or (type(d) is int and d >= 1) for d in shape):
        raise ValueError(f"{name!r:.100} has the shape {shape!r:.100}; whole numbers from 1 on, or null, were expected")
    rows = shape[0] if shape else None
    if (rows is not None and rows > MOST_ROWS) or math.prod(d or 1 for d in shape) > MOST_ELEMENTS:
        raise ValueError(f"{name!r:.100} has the shape {shape!r:.100}, which is more than memory holds")
    return TensorSpec(name, dtype, shape)


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{what} is {value!r:.100}; a list was expected")
    return list(value)


def _text(value: Any, what: str) -> str:
    if type(value) is not str:
        raise ValueError(f"{what} is {value!r:.100}; text was expected")
    value.encode()  # half a surrogate pair, which no file of results can hold, is a ValueError too
    return value
