"""What a model takes and gives, as plain data that every room can read.

Nothing here knows a framework, a file or a session.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

OutputKind = Literal["logits", "probs", "log_probs", "binary_logits", "binary_probs"]
OUTPUT_KINDS: tuple[str, ...] = get_args(OutputKind)
LOGIT_KINDS: tuple[str, ...] = ("logits", "log_probs", "binary_logits")
"""The kinds on which a temperature acts, and of which logits can be kept."""
PROBABILITY_KINDS: tuple[str, ...] = ("probs", "log_probs", "binary_probs")
"""The kinds of which not every row of numbers is one."""


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
        """The number of axes, the batch axis included."""
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
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    ranks: tuple[int, ...] | None = None


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
        """The inputs as sources need them."""
        return InputSignature(tuple(i.name for i in self.inputs), (), tuple(i.rank for i in self.inputs))

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that is built into the model, or ``None`` where the batch axis is dynamic."""
        sizes = {i.shape[0] for i in self.inputs if i.shape} - {None}
        return max((s for s in sizes if s is not None), default=None)

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON types; `from_dict` is its inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelSpec:
        """The spec that `to_dict` was called on."""

        def tensor(d: dict[str, Any]) -> TensorSpec:
            return TensorSpec(d["name"], d["dtype"], tuple(d["shape"]))

        names = data.get("class_names")
        return cls(
            inputs=tuple(tensor(d) for d in data["inputs"]),
            output=tensor(data["output"]),
            output_kind=data.get("output_kind"),
            classes=data.get("classes"),
            class_names=None if names is None else tuple(names),
            temperature=float(data.get("temperature", 1.0)),
            name=data.get("name", "model"),
            framework=data.get("framework", "onnx"),
        )
