"""The nets in torch: written out, or of transformers' configurations, with weights from a seed.

The two for digits are trained for some epochs. The others get the means of some samples, and their logits are spread, since
the rows of a net that is freshly made hardly differ, and each comparison would pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from . import rows

EPOCHS, NOISE, RATE = 12, 0.25, 2e-3


def _mlp() -> nn.Module:
    net = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, rows.CLASSES))
    return _trained(net, rows.digits(28)[0].reshape(-1, 784))


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 64, rows.CLASSES),
    )  # fmt: skip


def _convolve(channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width))


class Residual(nn.Module):
    """A residual block: two convolutions 3×3, or a bottleneck with four times as many channels in the end."""

    def __init__(self, channels: int, width: int, stride: int, *, is_bottleneck: bool) -> None:
        super().__init__()
        out = 4 * width if is_bottleneck else width
        if is_bottleneck:
            parts = [
                _convolve(channels, width, 1),
                nn.ReLU(),
                _convolve(width, width, 3, stride),
                nn.ReLU(),
                _convolve(width, out, 1),
            ]
        else:
            parts = [_convolve(channels, width, 3, stride), nn.ReLU(), _convolve(width, out, 3)]
        self.residual = nn.Sequential(*parts)
        is_same = stride == 1 and channels == out
        self.shortcut = nn.Identity() if is_same else _convolve(channels, out, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum of both ways."""
        return torch.relu(self.shortcut(x) + self.residual(x))


def _resnet(blocks: Sequence[int], *, is_bottleneck: bool) -> nn.Module:
    """Return a ResNet (He et al. 2015) with the stem for ImageNet."""
    parts: list[nn.Module] = [_convolve(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, count in enumerate(blocks):
        width = 64 << stage
        for block in range(count):
            stride = 2 if stage and not block else 1
            parts.append(Residual(channels, width, stride, is_bottleneck=is_bottleneck))
            channels = 4 * width if is_bottleneck else width
    parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, rows.CLASSES)]
    return nn.Sequential(*parts)


class Inverted(nn.Module):
    """An inverted residual block: wide in the middle, with a convolution per channel."""

    def __init__(self, channels: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        expand = [_convolve(channels, wide, 1), nn.ReLU6()] if expansion > 1 else []
        self.residual = nn.Sequential(
            *expand, _convolve(wide, wide, 3, stride, wide), nn.ReLU6(), _convolve(wide, out, 1)
        )
        self.adds = stride == 1 and channels == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output, added to its input if they have one shape."""
        return x + self.residual(x) if self.adds else self.residual(x)


MOBILE_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks, stride (Sandler et al. 2018, table 2)."""


def _mobilenet() -> nn.Module:
    parts: list[nn.Module] = [_convolve(3, 32, 3, 2), nn.ReLU6()]
    channels = 32
    for expansion, out, count, stride in MOBILE_STAGES:
        for block in range(count):
            parts.append(Inverted(channels, out, stride if block == 0 else 1, expansion))
            channels = out
    parts += [
        _convolve(channels, 1280, 1),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(1280, rows.CLASSES),
    ]
    return nn.Sequential(*parts)


def _vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768, num_labels=rows.CLASSES
    )
    return _spread(ViTForImageClassification(config), rows.images(16, 224))


def _bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=rows.VOCABULARY, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024,
        num_labels=rows.CLASSES,
    )  # fmt: skip
    return _spread(BertForSequenceClassification(config), rows.tokens(16))


class Recurrent(nn.Module):
    """An LSTM whose last state is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(rows.FEATURES, 128, batch_first=True)
        self.classifier = nn.Linear(128, rows.CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of the last step."""
        return self.classifier(self.lstm(x)[0][:, -1])


def _trained(net: nn.Module, samples: np.ndarray, epochs: int = EPOCHS) -> nn.Module:
    """Return the net, trained on the digits with noise of many strengths, by steps that become small in the end."""
    x, y = torch.from_numpy(np.ascontiguousarray(samples)), torch.from_numpy(rows.digits(28)[1])
    optimiser = torch.optim.AdamW(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=epochs * -(-len(x) // 64))
    order = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for chosen in torch.randperm(len(x), generator=order).split(64):
            optimiser.zero_grad()
            strength = 2 * NOISE * torch.rand(len(chosen), *[1] * (x.ndim - 1), generator=order)
            noise = strength * torch.randn(x[chosen].shape, generator=order)
            nn.functional.cross_entropy(net(x[chosen] + noise), y[chosen]).backward()
            optimiser.step()
            schedule.step()
    return net.eval()


def _spread(net: nn.Module, samples: np.ndarray) -> nn.Module:
    """Return the net with the samples' means and logits that differ from row to row."""
    x = torch.from_numpy(samples)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            # With those from the start the signal fades from layer to layer, and rounding is all that is left in the end.
            part.momentum = 1.0
    with torch.no_grad():
        net.train()(x)
        logits = net.eval()(x)
        last = [part for part in net.modules() if isinstance(part, nn.Linear)][-1]
        mean, scale = rows.spread_of(getattr(logits, "logits", logits))
        last.weight *= scale
        last.bias.copy_((last.bias - torch.from_numpy(mean)) * scale)
    return net


CONVOLUTIONAL: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "cnn": (_cnn, 32, EPOCHS),
    "resnet18": (functools.partial(_resnet, (2, 2, 2, 2), is_bottleneck=False), 64, 8),
    "resnet50": (functools.partial(_resnet, (3, 4, 6, 3), is_bottleneck=True), 64, 10),
    "mobilenet": (_mobilenet, 96, 8),
}
"""The nets for images, the side of these, and the epochs that are enough to learn the digits."""


def train_on_digits(name: str) -> nn.Module:
    """Return one of the convolutional nets, trained on enlarged digits in three equal channels."""
    torch.manual_seed(0)
    make, side, epochs = CONVOLUTIONAL[name]
    return _trained(make(), rows.in_colour(rows.digits(side)[0]), epochs)


def _spread_on_images(name: str) -> nn.Module:
    make, side, _ = CONVOLUTIONAL[name]
    return _spread(make(), rows.images(64, side))


NETS: dict[str, Callable[[], nn.Module]] = {
    "mlp": _mlp,
    "cnn": lambda: train_on_digits("cnn"),
    **{name: functools.partial(_spread_on_images, name) for name in ("resnet18", "resnet50", "mobilenet")},
    "vit": _vit,
    "bert": _bert,
    "lstm": lambda: _spread(Recurrent(), rows.sequences(64)),
}


@functools.cache
def _make(name: str) -> nn.Module:
    torch.manual_seed(0)
    return NETS[name]()


def __getattr__(name: str) -> Any:
    if name not in NETS:
        raise AttributeError(name)
    return _make(name)
