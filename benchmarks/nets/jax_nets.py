"""The nets in JAX, as flax modules bound to their weights from a seed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from . import rows

LAST = "classifier"


class Mlp(nn.Module):
    """A multilayer perceptron 784-256-10."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Return the logits."""
        return nn.Dense(rows.CLASSES, name=LAST)(nn.relu(nn.Dense(256)(x)))


class Cnn(nn.Module):
    """A small convolutional net."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Return the logits."""
        for width in (16, 32):
            x = nn.max_pool(nn.relu(nn.Conv(width, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(rows.CLASSES, name=LAST)(x.reshape(x.shape[0], -1))


class Residual(nn.Module):
    """A residual block of two convolutions."""

    width: int
    stride: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Return the sum of both ways."""
        norm = functools.partial(nn.BatchNorm, use_running_average=True)
        y = nn.relu(norm()(nn.Conv(self.width, (3, 3), self.stride, use_bias=False)(x)))
        y = norm()(nn.Conv(self.width, (3, 3), use_bias=False)(y))
        if x.shape != y.shape:
            x = norm()(nn.Conv(self.width, (1, 1), self.stride, use_bias=False)(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A ResNet (He et al. 2015) with the stem for ImageNet."""

    blocks: Sequence[int] = (2, 2, 2, 2)

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Return the logits."""
        x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(64, (7, 7), 2, use_bias=False)(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for stage, count in enumerate(self.blocks):
            for block in range(count):
                x = Residual(64 << stage, 2 if stage and not block else 1)(x)
        return nn.Dense(rows.CLASSES, name=LAST)(x.mean((1, 2)))


class Vit(nn.Module):
    """A vision transformer of the size called Tiny."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Return the logits."""
        x = nn.Conv(192, (16, 16), 16)(x).reshape(x.shape[0], -1, 192)
        x = x + self.param("places", nn.initializers.normal(0.02), (1, x.shape[1], 192))
        for _ in range(12):
            x = x + nn.MultiHeadDotProductAttention(3)(nn.LayerNorm()(x))
            x = x + nn.Dense(192)(nn.gelu(nn.Dense(768)(nn.LayerNorm()(x))))
        return nn.Dense(rows.CLASSES, name=LAST)(nn.LayerNorm()(x).mean(1))


def _bound(module: nn.Module, samples: np.ndarray) -> Any:
    """Return the module with its weights, whose logits differ from row to row."""
    variables = module.init(jax.random.key(0), jnp.asarray(samples[:2]))
    mean, scale = rows.spread_of(module.apply(variables, jnp.asarray(samples)))
    params = dict(variables["params"])
    kernel, bias = params[LAST]["kernel"], params[LAST]["bias"]
    params[LAST] = {"kernel": kernel * scale, "bias": (bias - mean) * scale}
    return functools.partial(module.apply, {**variables, "params": params})


NETS: dict[str, Callable[[], Any]] = {
    "mlp": lambda: _bound(Mlp(), rows.flat_digits(64)),
    "cnn": lambda: _bound(Cnn(), rows.channels_last(rows.colour_digits(64))),
    "resnet18": lambda: _bound(ResNet(), rows.channels_last(rows.images(64, 64))),
    "vit": lambda: _bound(Vit(), rows.channels_last(rows.images(8, 224))),
}


@functools.cache
def _make(name: str) -> Any:
    return NETS[name]()


def __getattr__(name: str) -> Any:
    if name not in NETS:
        raise AttributeError(name)
    return _make(name)
