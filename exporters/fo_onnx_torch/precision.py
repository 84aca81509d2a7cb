"""The floating-point types of a model and its rows: what its weights have, what it takes, and copies in float32."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import torch

from fo_onnx.contracts.batch import Inputs
from fo_onnx.errors import ExportError, first_line

from .modules import FlatModule, state_of

log = logging.getLogger("fo_onnx_torch")
HALVES = (torch.float16, torch.bfloat16)
TRIED_ROWS = 3
"""Rows that are run to see whether a model takes a dtype: those that an export is traced with."""


def is_half(module: torch.nn.Module) -> bool:
    """Return whether a module has weights of half precision."""
    return any(t.dtype in HALVES for t in state_of(module))


def float_dtype(module: torch.nn.Module) -> torch.dtype:
    """Return the dtype of a module's floating-point weights; float32 if it has none."""
    return next((t.dtype for t in state_of(module) if t.is_floating_point()), torch.float32)


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype, as numpy has it too."""
    return str(dtype).removeprefix("torch.")


def choose_dtypes(module: FlatModule, example: Inputs) -> tuple[torch.dtype, ...]:
    """Return the dtypes in which a model gets its inputs, decided once, on the first rows.

    These are those of the rows if the model takes them so, which is seen by running it: timestamps in float64 stay what
    they are. Else an input gets the dtype of the weights, as ``x.float()`` in front of a layer would give it.
    """
    few = {name: array[:TRIED_ROWS] for name, array in example.items()}
    given = tuple(t.dtype for t in module.to_tensors(few))
    own = tuple(_own_dtype(dtype, float_dtype(module)) for dtype in given)
    differing = [i for i, pair in enumerate(zip(given, own, strict=True)) if pair[0] != pair[1]]
    if not differing or _takes(module, few, given):
        return given
    chosen = list(own)
    # Of several inputs each for itself: one may be a time, and the other go into a layer.
    for i in differing if len(differing) > 1 else ():
        trial = [*chosen[:i], given[i], *chosen[i + 1 :]]
        if _takes(module, few, trial):
            chosen = trial
    return tuple(chosen)


def _own_dtype(given: torch.dtype, weights: torch.dtype) -> torch.dtype:
    if given.is_complex:
        return torch.complex128 if weights == torch.float64 else torch.complex64
    return weights if given.is_floating_point else given


def _takes(module: FlatModule, inputs: Inputs, dtypes: Sequence[torch.dtype]) -> bool:
    try:
        module.run(module.to_tensors(inputs, dtypes))
    except Exception as err:
        # Whatever it raises, it does not take them; if that has another cause, the run will meet it.
        log.debug("%s does not take %s: %s", module.model_name, dtypes, first_line(err))
        return False
    return True


def copy_module(module: FlatModule, dtype: torch.dtype | None = None) -> FlatModule:
    """Return a copy of a module, with its floating-point weights and tensors in `dtype`.

    Raises:
        Exception: Whatever the parts raise that cannot be copied, such as locks and generators.
    """
    copies: dict[int, Any] = {}
    for part in module.modules():
        attributes = [v for v in vars(part).values() if type(v) is torch.Tensor]
        # Of tensors that were computed, as the weight of weight_norm is, torch makes no deep copy.
        for value in (*attributes, *(b for b in part.buffers(recurse=False) if not b.is_leaf)):
            if id(value) not in copies:
                values = value.detach().clone()
                copies[id(value)] = values.to(dtype) if dtype is not None and values.is_floating_point() else values
    twin = copy.deepcopy(module, copies)
    return twin if dtype is None else twin.to(dtype)


def float32_copy(module: FlatModule) -> FlatModule:
    """Return a copy of a module in float32.

    Raises:
        ExportError: It cannot be copied; the message says what of it.
    """
    try:
        return copy_module(module, torch.float32)
    except Exception as err:
        raise ExportError(
            f"{module.model_name} is in {dtype_name(float_dtype(module))}, and ONNX needs a copy in float32, which "
            f"could not be made: {first_line(err)}"
        ) from err


def float32_copy_that_runs(module: FlatModule, example: Inputs) -> FlatModule | None:
    """Return a copy of a module in float32; ``None`` if there is none, or none that takes the first rows."""
    try:
        twin = float32_copy(module)
    except ExportError as err:
        log.info("%s", err)
        return None
    few = {name: array[:TRIED_ROWS] for name, array in example.items()}
    return twin if _takes(twin, few, choose_dtypes(twin, few)) else None
