"""Evaluation mode, for the time of a call: by the parts' own ``train()``, there and back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from .state import Snapshot


@contextlib.contextmanager
def evaluation_mode(module: torch.nn.Module) -> Iterator[None]:
    """Put the parts of a module that are in training mode into evaluation mode, and each back into its own at the end.

    A part may do more than set its flag: an adapter folds its update into the weights in ``train(False)`` and takes it
    out in ``train(True)``. So both ways go through these methods, and a module in evaluation mode is not touched. To
    take it out rounds, so that the weights of such parts are put back as well.
    """
    # Frozen ScriptModules have no mode.
    modes = [(part, part.training) for part in module.modules() if hasattr(part, "training")]
    if not any(is_training for _, is_training in modes):
        yield
        return
    snapshots = list(_take_snapshots(module))
    try:
        for part, _ in modes:
            # Those that were switched with the part above them are not called again.
            if part.training:
                _switch(part, False)
        yield
    finally:
        for part, is_training in modes:
            if part.training != is_training:
                _switch(part, is_training)
        for part, is_training in modes:
            # Some have a train() that leaves them, or parts of them, in evaluation mode.
            part.training = is_training
        for snapshot in snapshots:
            snapshot.put_back()


def _switch(part: torch.nn.Module, is_training: bool) -> None:
    # What torch.export gives has the mode that it was traced in, and refuses to change it.
    with contextlib.suppress(NotImplementedError):
        part.train() if is_training else part.eval()


def _take_snapshots(module: torch.nn.Module) -> Iterator[Snapshot]:
    """Yield snapshots, with their weights, of the parts whose own code switches them."""
    covered: set[int] = set()
    for part in module.modules():
        kind = type(part)
        is_own = kind.train is not torch.nn.Module.train or kind.eval is not torch.nn.Module.eval
        if is_own and id(part) not in covered and not isinstance(part, torch.jit.ScriptModule):
            covered |= {id(p) for p in part.modules()}
            yield Snapshot(part, weights=True)
