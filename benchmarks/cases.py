"""The models that are measured, built from seeds with logits scaled so that rows differ, and their rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Case:
    """A torch module and rows for it."""

    name: str
    net: Any
    rows: NDArray[np.float32]


def mlp(rows: int = 200_000) -> Case:
    """A multilayer perceptron 784-256-10."""
    from torch import nn

    _seed()
    net = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    return _scaled("MLP 784-256-10", net, (rows, 784))


def deep_mlp(rows: int = 50_000) -> Case:
    """A multilayer perceptron 128-1024-1024-10."""
    from torch import nn

    _seed()
    net = nn.Sequential(nn.Linear(128, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))
    return _scaled("MLP 128-1024-1024-10", net, (rows, 128))


def cnn(rows: int = 20_000) -> Case:
    """A small convolutional net on 3×32×32 images."""
    from torch import nn

    _seed()
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 64, 10),
    )  # fmt: skip
    return _scaled("CNN 3×32×32", net, (rows, 3, 32, 32))


def transformer(rows: int = 100_000) -> Case:
    """One transformer layer on 16 tokens of 64 values."""
    from torch import nn

    _seed()
    layer = nn.TransformerEncoderLayer(64, 4, 256, batch_first=True)
    return _scaled("Transformer 16×64", nn.Sequential(layer, nn.Flatten(), nn.Linear(16 * 64, 10)), (rows, 16, 64))


def _seed() -> None:
    import torch

    torch.manual_seed(0)


def _scaled(name: str, net: Any, shape: tuple[int, ...]) -> Case:
    import torch

    rows = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    net.eval()
    with torch.no_grad():
        logits = net(torch.from_numpy(rows[:256]))
        net[-1].weight *= 3 / logits.std()
    return Case(name, net, rows)
