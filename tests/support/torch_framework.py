"""torch's fixtures for the exporter contract."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from exporter_framework import ExportCase, Framework
from fo_onnx_torch.plugin import TorchExporter
from torch import nn


class Net(nn.Module):
    """Two inputs, a batch norm and a dropout: what evaluation mode must reach."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.norm = nn.Linear(6, 8), nn.Linear(4, 8), nn.BatchNorm1d(8)
        self.out = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 3))

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.norm(self.left(left) * self.right(right)))) * 3


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(x.mul_(2).clamp_(-3, 3)) * 3


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(x) * (3 if x.abs().max() < 1e6 else 1)


def net() -> Net:
    torch.manual_seed(0)
    model = Net()
    for _ in range(5):  # in training mode, so that the running statistics are warm
        model(torch.randn(64, 6), torch.randn(64, 4))
    model.out.eval()
    return model


def seeded(kind: type[nn.Module]) -> Any:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return kind()

    return make


def answer(model: nn.Module, inputs: dict[str, np.ndarray]) -> np.ndarray:
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    with torch.no_grad():
        raw = model(*(torch.from_numpy(a.copy()) for a in inputs.values())).double().numpy()
    for part, mode in modes:
        part.training = mode
    return raw


def snapshot(model: nn.Module) -> Any:
    flags = tuple(m.training for m in model.modules())
    return flags, tuple((n, t.numpy().tobytes(), t.requires_grad) for n, t in model.state_dict().items())


def change_one_weight(model: nn.Module) -> None:
    with torch.no_grad():
        next(iter(model.parameters())).view(-1)[0] += 1e-6


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


FRAMEWORK = Framework(
    exporter=TorchExporter(),
    module="torch",
    cases={
        "two_inputs": ExportCase(net, {"0": normal(9, 6), "1": normal(9, 4)}),
        "by_name": ExportCase(net, {"left": normal(9, 6), "right": normal(9, 4)}),
        "in_place": ExportCase(seeded(InPlace), {"0": normal(9, 6)}),
    },
    unexportable=ExportCase(seeded(Branching), {"0": normal(9, 6)}),
    named_in_the_error="Branching",
    wrong_shape={"0": normal(9, 7)},
    answer=answer,
    snapshot=snapshot,
    change_one_weight=change_one_weight,
    native_paths=["torch eager", "torch.compile"],
    remade="from torch_framework import net as make",
)
