"""An export is compared in the sessions of the run, cut as the run is; what is not run is not measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.contracts.batch import Batch
from fo_onnx.conversion import prepare
from fo_onnx.runtime import measured_plan
from fo_onnx.runtime.opened import OpenedModel
from fo_onnx.runtime.original_rows import AskingRunner

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

ROWS = np.random.default_rng(0).standard_normal((3000, 6), dtype=np.float32)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.out = nn.Linear(6, 3)
        self.calls: list[int] = []

    def forward(self, x: Any) -> Any:
        self.calls.append(int(x.shape[0]))
        return self.out(x) * 3


class Mixing(Net):
    def forward(self, x: Any) -> Any:
        return self.out(x) - self.out(x).mean(0)


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch sizes of the turns; one session over two cores is the fastest, at batches of 16 rows."""
    for module in ("open_runners", "request", "measured_plan", "measurements"):
        monkeypatch.setattr(f"fo_onnx.runtime.{module}.cpu_cores", lambda: 2)
    seen: list[int] = []

    def time_turn(opened: OpenedModel, batches: Iterator[Batch], count: int) -> float:
        seen.append(len(next(batches)))
        rate = {(8, 2): 2000, (16, 1): 3000}.get((seen[-1], opened.plan.sessions), 1000)
        return count * seen[-1] / rate

    monkeypatch.setattr(measured_plan, "_time", time_turn)
    return seen


def test_the_comparison_uses_the_sessions_of_the_run(turns: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[Any] = []
    measure = prepare.measure

    def remember(reference: Any, runner: AskingRunner, **arguments: Any) -> Any:
        compared.append(runner)
        return measure(reference, runner, **arguments)

    monkeypatch.setattr(prepare, "measure", remember)
    for chosen in ("measured", "as recorded"):
        compared.clear()
        with fo.Engine(Net(), runner="onnx") as engine:
            meta = engine.generate(ROWS).meta
            assert engine._shared is not None
            assert list(engine._shared.opened.runners) == compared
        tuning = meta["engine"]["tuning"]
        assert (tuning["chosen"], tuning["batch_size"], tuning["sessions"]) == (chosen, 16, 1)
        assert meta["parity"]["batch_sizes"][0] == 16
        assert meta["parity"]["rows"] == 256
        assert meta["parity"]["passed"] is True


def test_the_original_is_not_run_again_for_another_batch_size(turns: list[int]) -> None:
    """Its rows hold at any batch size, unless they depend on it; the noise between sizes counts as before."""
    by_rule, measured = Net(), Net()
    fo.generate(by_rule, ROWS, batch_size=256, runner="onnx")
    result = fo.generate(measured, ROWS, runner="onnx")
    assert result.meta["engine"]["batch_size"] == 16
    assert measured.calls.count(16) <= by_rule.calls.count(16)


def test_rows_that_depend_on_their_batch_are_not_measured(turns: list[int]) -> None:
    with pytest.warns(UserWarning, match="the model mixes the rows of a batch"):
        meta = fo.generate(Mixing(), ROWS, runner="onnx").meta
    assert (meta["engine"]["tuning"]["chosen"], turns) == ("by rule", [])


def test_what_is_not_run_is_not_measured(turns: list[int], tmp_path: Path) -> None:
    net = Net()
    fo.export(net, ROWS, tmp_path / "net.onnx")
    assert fo.verify(tmp_path / "net.onnx", net, ROWS).passed
    assert turns == []
