"""Finds the axes of inputs that are lengths of token sequences, which stay free in the file."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from .modules import FlatModule

log = logging.getLogger("fo_onnx_torch")
Axes = tuple[int, ...]
_CHANGES: tuple[Callable[[int], int], ...] = (lambda n: n + 1, lambda n: (n + 1) // 2)


def find_lengths(module: FlatModule, tensors: list[torch.Tensor]) -> list[Axes]:
    """Return for each input the axes that are as long as a sequence of tokens.

    Tokens are inputs of two axes that hold no floating-point numbers. Others (masks in float32, a mask for each query, boxes of words) have
    such axes if the model takes them in other lengths together with its tokens: 12 features beside 12 tokens stay 12.
    """
    tokens: list[Axes] = [(1,) if t.ndim == 2 and not t.is_floating_point() else () for t in tensors]
    lengths = {t.shape[1] for t, axes in zip(tensors, tokens, strict=True) if axes}
    equal = [tuple(i for i in range(1, t.ndim) if t.shape[i] in lengths) for t in tensors]
    if equal == tokens:
        return tokens
    for change in _CHANGES:
        try:
            module.run(_resize(tensors, equal, change))
        except Exception as err:
            log.debug("%s does not take all axes of equal length in another one: %s", module.model_name, err)
        else:
            return equal
    return tokens


def hold_for_other_lengths(
    module: FlatModule, tensors: list[torch.Tensor], free: list[Axes], traced: torch.nn.Module
) -> bool:
    """Return whether the traced graph is the model for token sequences of other lengths too.

    A loop of Python over the steps is traced as so many steps, and the length stays free all the same: longer sequences
    would be cut off without a word.
    """
    for change in _CHANGES:
        others = _resize(tensors, free, change)
        try:
            expected = module.run(others)
        except Exception as err:
            # The model itself does not take this length, so that nothing wrong can come of it.
            log.debug("%s takes no other lengths: %s", module.model_name, err)
            continue
        try:
            # It has the module's own weights, and its operators may write to them.
            with module.left_as_found():
                raw = traced(*others)
        except Exception as err:
            log.debug("the traced graph takes no other lengths: %s", err)
            return False
        if raw.shape != expected.shape or not torch.allclose(raw, expected, rtol=1e-3, atol=1e-4):
            return False
    return True


def _resize(tensors: list[torch.Tensor], free: list[Axes], change: Callable[[int], int]) -> list[torch.Tensor]:
    """Return tensors whose free axes are longer, by going round, or shorter; always in memory of their own."""
    resized = []
    for tensor, axes in zip(tensors, free, strict=True):
        other = tensor.clone()
        for axis in axes:
            size = other.shape[axis]
            other = other.index_select(axis, torch.arange(change(size), device=other.device) % size)
        resized.append(other)
    return resized
