"""Nets of every kind that the torch exporter must carry over, each with rows and with its own way of being called.

Their last layers are scaled so that rows lie well apart: a freshly made deep net is near-uniform and agrees with anything.
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

ROWS = 23


@dataclass(frozen=True)
class Case:
    """A model, rows for it, and how torch itself is asked for the logits of these rows.

    Attributes:
        model: What is given to fo-onnx.
        data: The rows: an array, a tuple or a dict of arrays.
        call: Takes the model and the rows as tensors, and gives logits (n, k).
        options: Arguments of `generate` that the case needs.
        tolerance: The largest total variation between torch and ONNX.
    """

    model: Any
    data: Any
    call: Callable[[Any, Any], torch.Tensor] = lambda model, rows: model(rows)
    options: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-5


def normal(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def images(rows: int, seed: int = 1) -> np.ndarray:
    """Images (rows, 3, 8, 8) whose colours differ from row to row, so that pooling does not make them alike."""
    return normal(rows, 3, 8, 8, seed=seed) + 2 * normal(rows, 3, 1, 1, seed=seed + 100)


def tokens(rows: int, length: int, vocabulary: int = 100, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocabulary, (rows, length))


def scaled(layer: nn.Linear, factor: float) -> nn.Linear:
    """A linear layer that spreads the rows."""
    with torch.no_grad():
        layer.weight.mul_(factor)
    return layer


def tensors(rows: Any) -> Any:
    """Rows as tensors, in the same structure."""
    if isinstance(rows, dict):
        return {k: tensors(v) for k, v in rows.items()}
    if isinstance(rows, tuple):
        return tuple(tensors(v) for v in rows)
    return torch.from_numpy(np.array(rows))


def first(rows: Any, n: int) -> Any:
    """The first `n` rows, in the same structure."""
    if isinstance(rows, dict):
        return {k: first(v, n) for k, v in rows.items()}
    if isinstance(rows, tuple):
        return tuple(first(v, n) for v in rows)
    return rows[:n]


def truth(case: Case) -> np.ndarray:
    """softmax of the logits that torch gives in evaluation mode, in float64. The model itself is not touched."""
    model = case.model
    modules = [m for m in (model, getattr(model, "__self__", None)) if isinstance(m, nn.Module)]
    modes = [(part, part.training) for m in modules for part in m.modules() if hasattr(part, "training")]
    if any(mode for _, mode in modes):
        for m in modules:
            m.eval()
    try:
        with torch.no_grad():
            logits = case.call(model, tensors(case.data))
    finally:
        for part, mode in modes:
            part.training = mode
    return torch.softmax(logits.double(), dim=1).numpy()


class Mlp(nn.Module):
    def __init__(self, inputs: int = 8, classes: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, 16), nn.GELU(), scaled(nn.Linear(16, classes), 6))
        self.register_buffer("mean", torch.full((inputs,), 0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x - self.mean)


class Cnn(nn.Module):
    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), scaled(nn.Linear(32, classes), 4),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class MergingAdapter(nn.Linear):
    """A linear layer with a low-rank update: ``train(False)`` folds it into the weight, ``train(True)`` undoes it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.weight.requires_grad_(False)
        self.merged = False
        self.a, self.b = nn.Parameter(torch.randn(2, inputs)), nn.Parameter(torch.randn(outputs, 2))

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        if mode == self.merged:
            self.weight.data += self.b @ self.a * (-1 if mode else 1)
            self.merged = not mode
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return y if self.merged else y + x @ self.a.T @ self.b.T


class CachedTable(Mlp):
    """Computes a table in its first call and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.table: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.table is None:
            self.table = torch.cos(torch.arange(x.shape[1], dtype=torch.float32))
        return super().forward(x * self.table)


class OnGradients(Mlp):
    """Classifies the gradient of an inner net."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), scaled(nn.Linear(16, 1), 9))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self.inner(x).sum(), x)
        return super().forward(gradient.detach())


class FollowsItsMean(Mlp):
    """Moves its statistics in evaluation mode, too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.tensor(0))
        self.mean.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = super().forward(x)
        self.mean.mul_(0.9).add_(0.1 * x.mean(0))
        self.calls.add_(1)
        return scores


class Clock(nn.Module):
    """Times in seconds since 1970, which float32 holds to two minutes."""

    def __init__(self) -> None:
        super().__init__()
        self.out = scaled(nn.Linear(8, 4), 5)

    def forward(self, seconds: torch.Tensor) -> torch.Tensor:
        s = seconds - 1.7e9
        return self.out(torch.stack([torch.sin(s * (k + 1) / 60) for k in range(8)], 1).float())


def times(rows: int) -> np.ndarray:
    return 1.7e9 + np.random.default_rng(1).uniform(0, 3600, rows)


class Radio(nn.Module):
    """Complex rows, as of a radio signal."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Mlp(inputs=16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(torch.cat([x.real, x.imag], -1).float())


def complex_rows(rows: int) -> np.ndarray:
    return (normal(rows, 8) + 1j * normal(rows, 8, seed=2)).astype(np.complex64)


def warmed(net: nn.Module, rows: np.ndarray) -> nn.Module:
    """Fills the running statistics of batch norms with those of real rows."""
    net.train()
    with torch.no_grad():
        for seed in range(5):
            net(torch.from_numpy(rows * (0.5 + 0.3 * seed) + 0.2 * seed))
    return net.eval()


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(6, 12, batch_first=True, bidirectional=True)
        self.out = scaled(nn.Linear(24, 3), 15)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(x)[0][:, -1])


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = scaled(nn.Linear(16, 4), 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.body(x).mean(1))


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 16)
        self.out = scaled(nn.Linear(16, 3), 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.embedding(x).mean(1))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = scaled(nn.Linear(8, 4), 4), scaled(nn.Linear(5, 4), 4)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.a(left) - self.b(right)


class DictInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = TwoInputs()

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.net(batch["left"], batch["right"])


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = TwoInputs()

    def forward(self, *, right: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
        return self.net(left, right)


class OptionalInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Mlp()

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None, scale: float = 2.0) -> torch.Tensor:
        return self.net(x if mask is None else x * mask) * scale


class NestedInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = TwoInputs()

    def forward(self, views: dict[str, torch.Tensor], shift: torch.Tensor) -> torch.Tensor:
        return self.net(views["left"], views["right"]) + shift


@dataclass
class Scores:
    hidden: torch.Tensor
    logits: torch.Tensor


class Returning(nn.Module):
    """An Mlp whose logits come in some wrapping."""

    def __init__(self, wrap: Callable[[torch.Tensor, torch.Tensor], Any]) -> None:
        super().__init__()
        self.net, self.wrap = Mlp(), wrap

    def forward(self, x: torch.Tensor) -> Any:
        return self.wrap(x * 2, self.net(x))


class DoubledLogits(nn.Module):
    """Twice the logits, by a forward hook."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Mlp()
        self.net.register_forward_hook(lambda module, inputs, output: output * 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def shifted(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x) + torch.arange(4.0)


class InPlace(nn.Module):
    """Works in place on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Mlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.mul_(0.5).add_(0.1))


def bert() -> Case:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, num_labels=3,
    )  # fmt: skip
    net = BertForSequenceClassification(config).eval()
    scaled(net.classifier, 60)
    mask = np.ones((ROWS, 12), np.int64)
    mask[::3, 8:] = 0
    rows = {"input_ids": tokens(ROWS, 12), "attention_mask": mask}
    return Case(net, rows, lambda m, r: m(**r).logits)


def vit() -> Case:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=16, patch_size=4,
        num_labels=5,
    )  # fmt: skip
    net = ViTForImageClassification(config).eval()
    scaled(net.classifier, 60)
    return Case(net, normal(ROWS, 3, 16, 16), lambda m, r: m(pixel_values=r).logits)


def model_output() -> Case:
    from transformers.modeling_outputs import SequenceClassifierOutput

    net = Returning(lambda hidden, logits: SequenceClassifierOutput(logits=logits, hidden_states=(hidden,)))
    return Case(net.eval(), normal(ROWS, 8), lambda m, r: m(r).logits)


def closure() -> Case:
    net = Mlp().eval()
    temperature = torch.tensor(0.5)

    def classify(x: torch.Tensor) -> torch.Tensor:
        return net(x) / temperature

    return Case(classify, normal(ROWS, 8))


def partial() -> Case:
    def classify(net: nn.Module, x: torch.Tensor, *, factor: float) -> torch.Tensor:
        return net(x) * factor

    return Case(functools.partial(classify, Mlp().eval(), factor=1.5), normal(ROWS, 8))


def halved(net: nn.Module, dtype: torch.dtype, rows: np.ndarray) -> Case:
    """A module of half precision; what counts is its float32 copy."""
    net = net.to(dtype)
    return Case(net, rows, lambda m, r: copy.deepcopy(m).float()(r))


def two_rows(*, names: tuple[str, str] = ("left", "right")) -> dict[str, np.ndarray]:
    return {names[0]: normal(ROWS, 8), names[1]: normal(ROWS, 5, seed=2)}


def scripted(net: nn.Module) -> Any:
    with warnings.catch_warnings():
        # torch says with each call that scripting is deprecated; people have such modules all the same.
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(net)


def traced(net: nn.Module, rows: torch.Tensor) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.trace(net, rows)


def in_train_mode() -> Case:
    net = warmed(Cnn(), images(64, seed=9))
    net.train()
    net.body[4].eval()  # a mixed state must be left mixed
    net.body[0].weight.requires_grad_(False)
    return Case(net, images(ROWS))


def weight_norm() -> Case:
    layer = torch.nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
    return Case(nn.Sequential(layer, nn.Tanh(), scaled(nn.Linear(8, 4), 6)).eval(), normal(ROWS, 8))


def half_with_hooks(wrap: Callable[[nn.Module], nn.Module]) -> Case:
    """A module in bfloat16 whose hooks compute a weight: no leaf, of which torch makes no deep copy."""
    net = nn.Sequential(wrap(nn.Linear(8, 8)), nn.Tanh(), scaled(nn.Linear(8, 4), 6)).to(torch.bfloat16)
    net(torch.from_numpy(normal(3, 8)).bfloat16())
    # The truth is the model itself, in bfloat16.
    return Case(net.eval(), normal(ROWS, 8), lambda m, r: m(r.bfloat16()), tolerance=5e-2)


def program() -> torch.export.ExportedProgram:
    """What torch.export gives of a net, with a free number of rows."""
    rows = torch.from_numpy(normal(3, 8))
    return torch.export.export(Mlp().eval(), (rows,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))


def program_of_4_rows() -> Case:
    """What torch.export gives of a net without a free number of rows."""
    net = Mlp().eval()
    exported = torch.export.export(net, (torch.from_numpy(normal(4, 8)),))
    # The truth is the net itself, which takes any number.
    return Case(exported, normal(ROWS, 8), lambda _, rows: net(rows))


CASES: dict[str, Callable[[], Case]] = {
    "mlp": lambda: Case(Mlp().eval(), normal(ROWS, 8)),
    "cnn": lambda: Case(warmed(Cnn(), images(64, seed=9)), images(ROWS)),
    "lstm": lambda: Case(Lstm().eval(), normal(ROWS, 9, 6)),
    "encoder": lambda: Case(Encoder().eval(), normal(ROWS, 7, 16)),
    "tokens": lambda: Case(Tokens().eval(), tokens(ROWS, 9)),
    "bert": bert,
    "vit": vit,
    "two_inputs": lambda: Case(TwoInputs().eval(), (normal(ROWS, 8), normal(ROWS, 5, seed=2)), lambda m, r: m(*r)),
    "dict_input": lambda: Case(DictInput().eval(), two_rows()),
    "keywords": lambda: Case(Keywords().eval(), two_rows(), lambda m, r: m(**r)),
    "optional_left_out": lambda: Case(OptionalInput().eval(), normal(ROWS, 8)),
    "optional_given": lambda: Case(
        OptionalInput().eval(),
        {"x": normal(ROWS, 8), "mask": np.float32(normal(ROWS, 8, seed=3) > 0)},
        lambda m, r: m(**r),
    ),
    "nested_input": lambda: Case(
        NestedInput().eval(), {"views": two_rows(), "shift": normal(ROWS, 4, seed=4)}, lambda m, r: m(**r)
    ),
    "tuple_output": lambda: Case(
        Returning(lambda h, z: (h, z)).eval(), normal(ROWS, 8), lambda m, r: m(r)[1], {"output_name": "1"}
    ),
    "dict_output": lambda: Case(
        Returning(lambda h, z: {"hidden": h, "logits": z}).eval(), normal(ROWS, 8), lambda m, r: m(r)["logits"]
    ),
    "dataclass_output": lambda: Case(Returning(Scores).eval(), normal(ROWS, 8), lambda m, r: m(r).logits),
    "model_output": model_output,
    "scripted": lambda: Case(scripted(Mlp().eval()), normal(ROWS, 8)),
    "traced": lambda: Case(traced(Mlp().eval(), torch.from_numpy(normal(5, 8))), normal(ROWS, 8)),
    "compiled": lambda: Case(torch.compile(Mlp().eval(), backend="eager"), normal(ROWS, 8)),
    "data_parallel": lambda: Case(nn.DataParallel(Mlp().eval()), normal(ROWS, 8)),
    "bfloat16": lambda: halved(warmed(Cnn(), images(64, seed=9)), torch.bfloat16, images(ROWS)),
    "float16": lambda: halved(Mlp().eval(), torch.float16, normal(ROWS, 8)),
    "float64": lambda: Case(Mlp().eval().double(), normal(ROWS, 8).astype(np.float64)),
    "train_mode": in_train_mode,
    "hooks": lambda: Case(DoubledLogits().eval(), normal(ROWS, 8)),
    "weight_norm": weight_norm,
    "in_place": lambda: Case(InPlace().eval(), normal(ROWS, 8)),
    "closure": closure,
    "partial": partial,
    "bound_method": lambda: Case(DoubledLogits().eval().shifted, normal(ROWS, 8)),
}
"""Models that must run in ONNX as a whole."""

COVERED_ELSEWHERE = {
    "tokens", "optional_left_out", "keywords", "dict_output", "model_output", "data_parallel", "bfloat16", "float16", "hooks",
    "weight_norm", "partial", "bound_method",
}  # fmt: skip
"""Those of which the quick tests see the like in another case or another test; exports take seconds."""


class DataDependentIf(Mlp):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.abs().max() > 1000:
            x = x / 1000
        return super().forward(x)


@torch.library.custom_op("fo_onnx_tests::sorted_rows", mutates_args=())
def sorted_rows(x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.sort(x.numpy(), axis=1))


@sorted_rows.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class CustomOperator(Mlp):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.ops.fo_onnx_tests.sorted_rows(x))


class NumpyInside(Mlp):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.from_numpy(np.interp(x.numpy(), [-2, 2], [-1, 1])).float())


class Inverse(Mlp):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outer = x[:, :, None] * x[:, None, :] + torch.eye(8)
        return super().forward((torch.linalg.inv(outer) @ x[:, :, None])[:, :, 0] * 3)


class Eigenvalues(Mlp):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = torch.linspace(0.1, 1, 64).reshape(8, 8)
        square = x[:, :, None] * weights
        return super().forward(torch.linalg.eigh(square + square.mT)[0] / 3)


class LostBatchGuard(Mlp):
    """Takes another way for batches of three, which is the one that is traced."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] % 3 == 0:
            return super().forward(x.view(-1, 3, 8)).view(-1, 4)
        return super().forward(x)


class LostLengthGuard(Tokens):
    """Cuts long sequences off; the branch is not traced, and its guard is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(1, 16, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] > 16:
            x = x[:, :16]
        h = self.embedding(x)
        return self.out((h + self.position[:, : h.shape[1]]).mean(1))


class Sampling(Mlp):
    """Drops out in evaluation mode as well."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.dropout(x, 0.5, training=True))


FALLBACKS: dict[str, tuple[Callable[[], Case], str]] = {
    "data_dependent_if": (lambda: Case(DataDependentIf().eval(), normal(ROWS, 8)), "if x.abs().max() > 1000"),
    "custom_operator": (lambda: Case(CustomOperator().eval(), normal(ROWS, 8)), "fo_onnx_tests.sorted_rows"),
    "numpy_inside": (lambda: Case(NumpyInside().eval(), normal(ROWS, 8)), "torch.from_numpy(np.interp("),
    "inverse": (lambda: Case(Inverse().eval(), normal(ROWS, 8)), "linalg_inv"),
    "eigenvalues": (lambda: Case(Eigenvalues().eval(), normal(ROWS, 8)), "linalg_eigh"),
    "lost_batch_guard": (lambda: Case(LostBatchGuard().eval(), normal(ROWS, 8)), "running Reshape node"),
}
"""Models that cannot run in ONNX, and what the reason must name."""


def make(name: str) -> Case:
    """The case called `name`, with the same weights every time."""
    torch.manual_seed(0)
    return CASES[name]() if name in CASES else FALLBACKS[name][0]()
