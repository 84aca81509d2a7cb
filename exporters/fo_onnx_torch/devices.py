"""The devices of torch, by the names that the core gives them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from fo_onnx.contracts.exporter import Devices
from fo_onnx.errors import DeviceError


def find_device(name: Devices) -> torch.device:
    """Return the device of torch with this name. Raises `DeviceError`, listing those that are there."""
    if not isinstance(name, str):
        raise DeviceError(f"device={list(name)}: several devices were asked for, and the torch runner takes one.")
    available = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name not in available:
        build = f"torch {torch.__version__}" + ("" if torch.version.cuda else " is built without CUDA, and")
        known = name.partition(":")[0] in ("cpu", "cuda")
        raise DeviceError(
            f"device={name!r} was asked for, but {build} has only {', '.join(available)}."
            + ("" if known else " The torch runner knows cpu and cuda.")
        )
    return torch.device(name)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread: small batches are not worth sharing, and waiting for a second thread on busy cores took ten times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
