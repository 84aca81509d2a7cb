"""The net of ``fo-onnx demo``: a small convolutional one, trained on scikit-learn's digits."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .devices import one_thread

EPOCHS = 10
BATCH = 64
LEARNING_RATE = 3e-3
HELD_OUT = 360
"""Rows that are not trained on, of 1,797."""


class DigitNet(nn.Module):
    """Two convolutions with batch norm, and a linear layer: (n, 1, 8, 8) to logits (n, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classify = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(32 * 4 * 4, 10))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits (n, 10) of images (n, 1, 8, 8) with values in [0, 1]."""
        logits: torch.Tensor = self.classify(self.features(image))
        return logits


def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return images (1797, 1, 8, 8), float32 in [0, 1], and the digits (1797,) that they show; part of scikit-learn."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return (bunch.images[:, None] / 16).astype(np.float32), bunch.target.astype(np.int64)


def splits(rows: int, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the row numbers to train on, and to hold out, each ascending."""
    order = np.random.default_rng(seed).permutation(rows)
    return np.sort(order[HELD_OUT:]), np.sort(order[:HELD_OUT])


def train(images: NDArray[np.float32], labels: NDArray[np.int64], seed: int = 0) -> DigitNet:
    """Return a net trained on these rows, in evaluation mode; the same seed gives the same net on the same machine."""
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(seed)
        net = DigitNet()
        optimizer = torch.optim.Adam(net.parameters(), LEARNING_RATE)
        x, y = torch.from_numpy(images), torch.from_numpy(labels)
        for _ in range(EPOCHS):
            for part in torch.randperm(len(x)).split(BATCH):  # type: ignore[no-untyped-call]
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x[part]), y[part]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return net.eval()
