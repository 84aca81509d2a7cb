"""torch's cases of the coverage table: the nets of the tests, and what else a torch user brings."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import prune
from torch_attention import CASES as ATTENTION
from torch_nets import CASES as NETS
from torch_nets import (
    FALLBACKS,
    ROWS,
    CachedTable,
    Case,
    Clock,
    FollowsItsMean,
    MergingAdapter,
    Mlp,
    OnGradients,
    Radio,
    complex_rows,
    half_with_hooks,
    images,
    make,
    normal,
    program,
    program_of_4_rows,
    scaled,
    scripted,
    times,
    warmed,
)


class Recurrent(nn.Module):
    """A GRU over sequences (n, time, 6)."""

    def __init__(self, cell: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cell = cell(6, 12, batch_first=True)
        self.out = scaled(nn.Linear(12, 4), 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.cell(x)[0][:, -1])


class Conditional(Mlp):
    """A branch on a buffer's value, which ``torch.cond`` keeps in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("threshold", torch.tensor(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(self.threshold > 0, lambda a: a * 2, lambda a: a - 1, (super().forward(x),))


class DoubledSine(torch.autograd.Function):
    """An operator with a gradient of its own."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(x) * 2

    @staticmethod
    def backward(ctx: object, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0]


class Differentiated(Mlp):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(DoubledSine.apply(x))


class Autocast(nn.Module):
    """Computes in bfloat16 within an autocast region."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.net(x).float()


class Spectrum(Mlp):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.fft.rfft(x, n=14).abs())


class CountsPositives(Mlp):
    """A shape that depends on the data, within the model."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.nonzero(x > 0)[:, 0]
        counts = torch.zeros(len(x)).index_add(0, rows, torch.ones(len(rows)))
        return super().forward(x) + counts[:, None] * torch.tensor([1.0, -1.0, 0.5, 0.0])


class LoopsOverItem(Mlp):
    """Python's own loop over a number out of a tensor; more turns change nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(int(x.abs().max().item()) + 1):
            x = x.clamp(-3, 3)
        return super().forward(x)


class AxesOfOne(Mlp):
    """Scores of (n, 1, classes), as a model of several heads gives them for one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)[:, None]


class NoiseTimesZero(Mlp):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + 0 * torch.randn_like(x))


class Scaled(Mlp):
    def forward(self, x: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
        return super().forward(x) * factor


class Block(nn.Module):
    """A residual block of two 3x3 convolutions."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip
        same = stride == 1 and channels_in == channels
        self.shortcut: nn.Module = nn.Identity() if same else nn.Conv2d(channels_in, channels, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet18() -> Case:
    """The layout of ResNet-18 (He et al. 2015), a quarter as wide."""
    widths = [(16, 1), (16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1)]
    blocks, before = [], 16
    for width, stride in widths:
        blocks.append(Block(before, width, stride))
        before = width
    stem = [nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    net = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), scaled(nn.Linear(before, 10), 40))
    large = functools.partial(nn.functional.interpolate, size=(64, 64))
    return Case(
        warmed(net, large(torch.from_numpy(images(64, seed=9))).numpy()), large(torch.from_numpy(images(ROWS))).numpy()
    )


def quantized() -> Case:
    net = torch.ao.quantization.quantize_dynamic(Mlp().eval(), {nn.Linear}, dtype=torch.qint8)
    # Its activations are scaled by the range of the batch, so that an answer depends on which rows run together.
    return Case(net, normal(ROWS, 8), tolerance=5e-2)


def _plain(kind: type[nn.Module]) -> Callable[[], Case]:
    return lambda: Case(kind().eval(), normal(ROWS, 8))


MORE: dict[str, Callable[[], Case]] = {
    "gru": lambda: Case(Recurrent(nn.GRU).eval(), normal(ROWS, 9, 6)),
    "rnn": lambda: Case(Recurrent(nn.RNN).eval(), normal(ROWS, 9, 6)),
    "torch_cond": _plain(Conditional),
    "axes_of_one": lambda: Case(AxesOfOne().eval(), normal(ROWS, 8), call=lambda model, rows: model(rows)[:, 0]),
    "autograd_function": _plain(Differentiated),
    "autocast_bfloat16": lambda: Case(Autocast(Mlp()).eval(), normal(ROWS, 8), tolerance=2e-2),
    "fft": _plain(Spectrum),
    "nonzero": _plain(CountsPositives),
    "item_loop": _plain(LoopsOverItem),
    "noise_times_zero": _plain(NoiseTimesZero),
    "quantized_dynamic": quantized,
    "resnet18": resnet18,
    "merging_adapter": lambda: Case(
        nn.Sequential(MergingAdapter(8, 16), nn.Tanh(), nn.Linear(16, 4)).train(), normal(ROWS, 8)
    ),
    "cached_table": _plain(CachedTable),
    "gradient_inside": _plain(OnGradients),
    "moving_statistics": lambda: Case(FollowsItsMean().eval(), normal(ROWS, 8), lambda m, r: copy.deepcopy(m)(r)),
    "frozen_script": lambda: Case(torch.jit.freeze(scripted(Mlp().eval())), normal(ROWS, 8)),
    "exported_program": lambda: Case(program(), normal(ROWS, 8), lambda m, r: m.module()(r)),
    "exported_program_of_4_rows": program_of_4_rows,
    "float64_times": lambda: Case(Clock().eval(), times(ROWS)),
    "complex_rows": lambda: Case(Radio().eval(), complex_rows(ROWS)),
    "half_old_weight_norm": lambda: half_with_hooks(torch.nn.utils.weight_norm),
    "half_pruned": lambda: half_with_hooks(lambda layer: prune.l1_unstructured(layer, "weight", 0.5)),
    "partial_of_a_module": lambda: Case(functools.partial(Scaled().eval(), factor=1.5), normal(ROWS, 8)),
}


def seeded(case: Callable[[], Case]) -> Callable[[], Case]:
    """A case with the same weights every time."""

    def made() -> Case:
        torch.manual_seed(0)
        return case()

    return made


CASES: dict[str, Callable[[], Case]] = {
    **{name: functools.partial(make, name) for name in (*NETS, *FALLBACKS)},
    **{name: seeded(case) for name, case in (MORE | ATTENTION).items()},
}
