"""What ``torch.compile`` returned runs compiled for rows that it was compiled for, and is never compiled by a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fo_onnx as fo

ROWS = np.random.default_rng(0).normal(size=(640, 8)).astype(np.float32)


class Backend:
    """A backend of ``torch.compile`` that runs graphs as they are, and counts."""

    def __init__(self) -> None:
        self.compiled, self.runs = 0, 0

    def __call__(self, graph: Any, example: Any) -> Callable[..., Any]:
        self.compiled += 1

        def run(*args: Any) -> Any:
            self.runs += 1
            return graph.forward(*args)

        return run


@pytest.fixture
def backend() -> Backend:
    torch._dynamo.reset()
    return Backend()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.last = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.hidden(x)))


def make_net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def expected(net: nn.Module) -> np.ndarray:
    with torch.no_grad():
        return torch.softmax(net(torch.from_numpy(ROWS)), 1).numpy()


def compile_module(net: nn.Module, backend: Backend) -> Any:
    return torch.compile(net, backend=backend)


def compile_function(net: nn.Module, backend: Backend) -> Any:
    @torch.compile(backend=backend)
    def function(x: torch.Tensor) -> torch.Tensor:
        return net(x)

    return function


def compile_in_place(net: nn.Module, backend: Backend) -> Any:
    net.compile(backend=backend)
    return net


def compile_a_part(net: nn.Module, backend: Backend) -> Any:
    return nn.Sequential(torch.compile(net, backend=backend)).eval()


@pytest.mark.parametrize("compile_", [compile_module, compile_function, compile_in_place, compile_a_part])
def test_it_runs_compiled_where_it_was_compiled_before(compile_: Any, backend: Backend) -> None:
    net = make_net()
    compiled = compile_(net, backend)
    with torch.no_grad():
        compiled(torch.zeros(64, 8))
    assert (backend.compiled, backend.runs) == (1, 1)
    dists = fo.generate(compiled, ROWS, runner="native", batch_size=64)
    np.testing.assert_allclose(dists.probs, expected(make_net()), atol=1e-6)
    assert backend.compiled == 1
    assert backend.runs >= len(ROWS) // 64


@pytest.mark.parametrize("runner", ["native", "onnx"])
@pytest.mark.parametrize("compile_", [compile_module, compile_function, compile_in_place, compile_a_part])
def test_a_run_compiles_nothing(compile_: Any, runner: str, backend: Backend) -> None:
    compiled = compile_(make_net(), backend)
    dists = fo.generate(compiled, ROWS, runner=runner)
    assert dists.meta["runner"]["kind"] == runner
    np.testing.assert_allclose(dists.probs, expected(make_net()), atol=1e-6)
    assert backend.compiled == 0
    # It is left as it was: it compiles for its owner.
    with torch.no_grad():
        compiled(torch.zeros(5, 8))
    assert backend.compiled == 1


def test_a_copy_in_float32_is_none_of_the_compiled(backend: Backend) -> None:
    compiled = torch.compile(make_net().bfloat16(), backend=backend)
    dists = fo.generate(compiled, ROWS, runner="native")
    np.testing.assert_allclose(dists.probs, expected(make_net().bfloat16().float()), atol=1e-5)
    assert backend.compiled == 0
