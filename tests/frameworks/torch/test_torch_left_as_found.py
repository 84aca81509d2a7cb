"""A torch model is left as it was found: its mode, its weights, and what a call writes to or replaces."""

from __future__ import annotations

import copy
import logging
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.conversion.parity import row_spread
from fo_onnx.distributions.probabilities import total_variation

torch = pytest.importorskip("torch")
from fo_onnx_torch import state as torch_state  # noqa: E402
from fo_onnx_torch.evaluation import evaluation_mode  # noqa: E402
from fo_onnx_torch.identity import fingerprint  # noqa: E402
from fo_onnx_torch.state import StateKeeper  # noqa: E402
from torch import nn  # noqa: E402
from torch_nets import (  # noqa: E402
    ROWS,
    CachedTable,
    FollowsItsMean,
    MergingAdapter,
    Mlp,
    OnGradients,
    normal,
    scripted,
    tokens,
)

X = normal(ROWS, 8)


def probs_of(net: nn.Module, rows: np.ndarray = X) -> np.ndarray:
    """What a copy of the net gives in evaluation mode."""
    with torch.no_grad():
        return torch.softmax(copy.deepcopy(net).eval()(torch.from_numpy(rows)).double(), 1).numpy()


def use(way: str, net: nn.Module, rows: np.ndarray, folder: Path) -> np.ndarray:
    """The rows by one of the ways that a user has."""
    if way == "export":
        return fo.generate(fo.export(net, rows, folder / "net.onnx"), rows).probs
    return fo.generate(net, rows, runner=way, batch_size=7).probs


# Evaluation mode --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["native", "onnx", pytest.param("export", marks=pytest.mark.slow)])
def test_an_adapter_that_merges_in_evaluation_mode_comes_out_again(way: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(MergingAdapter(8, 16), nn.Tanh(), nn.Linear(16, 4)).train()
    expected, before = probs_of(net), {n: t.clone() for n, t in net.state_dict().items()}
    assert row_spread(expected) > 0.02

    assert total_variation(expected, use(way, net, X, tmp_path)).max() < 1e-5

    assert net.training
    assert not net[0].merged
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items()), "to the last bit"
    net(torch.from_numpy(X)).sum().backward()
    assert net[0].a.grad is not None
    assert net[0].b.grad is not None


class CountsSwitches(nn.Linear):
    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.switches: list[bool] = []

    def train(self, mode: bool = True) -> Any:
        if "switches" in vars(self):
            self.switches.append(mode)
        return super().train(mode)


def test_a_module_in_evaluation_mode_is_not_touched() -> None:
    net = nn.Sequential(CountsSwitches(8, 4)).eval()
    net[0].switches.clear()
    with evaluation_mode(net):
        assert net[0].switches == []
    assert net[0].switches == []
    # Only what is in training mode is switched, by its own methods.
    both = nn.Sequential(CountsSwitches(8, 8).eval(), CountsSwitches(8, 4).train())
    both.training = False
    before = [list(part.switches) for part in both]
    with evaluation_mode(both):
        assert [m.training for m in both.modules()] == [False] * 3
        assert both[0].switches == before[0]
        assert both[1].switches[-1] is False
    assert [m.training for m in both.modules()] == [False, False, True]


class StaysFrozen(nn.BatchNorm1d):
    def train(self, mode: bool = True) -> Any:
        return super().train(False)


def test_each_part_gets_its_own_mode_back() -> None:
    net = nn.Sequential(nn.Linear(8, 8), StaysFrozen(8), nn.Sequential(nn.Dropout(), nn.Linear(8, 4))).train()
    net[2].eval()
    net[2][0].train()
    net[1].training = True  # a flag that its own train() would not set
    flags = [m.training for m in net.modules()]

    fo.generate(net, X, runner="native")

    assert [m.training for m in net.modules()] == flags


def test_modes_are_put_back_after_an_error() -> None:
    net = nn.Sequential(MergingAdapter(8, 16), nn.Linear(15, 4)).train()
    before = net[0].weight.clone()
    with pytest.raises(fo.DataError, match="does not take the data"):
        fo.generate(net, X)
    assert net.training
    assert not net[0].merged
    assert torch.equal(net[0].weight, before)


class RefusesModes(nn.Linear):
    def train(self, mode: bool = True) -> Any:
        raise TypeError("this layer has no modes")


def test_a_part_that_cannot_be_switched_is_an_error_that_says_so() -> None:
    with pytest.raises(fo.DataError, match="this layer has no modes"):
        fo.generate(nn.Sequential(nn.Linear(8, 8), RefusesModes(8, 4)), X)


# Gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["native", "auto", pytest.param("export", marks=pytest.mark.slow)])
def test_training_goes_on_after_a_table_was_made(way: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = CachedTable().train()

    assert total_variation(probs_of(net), use(way, net, X, tmp_path)).max() < 1e-5

    net(torch.from_numpy(X)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_a_model_that_takes_gradients_inside() -> None:
    torch.manual_seed(0)
    net = OnGradients().eval()
    expected = probs_of(net)
    assert row_spread(expected) > 0.05
    with pytest.warns(fo.FallbackWarning):
        dists = fo.generate(net, X)
    assert total_variation(expected, dists.probs).max() < 1e-6


# State ------------------------------------------------------------------------------------------------------------


class Remembers(nn.Module):
    """Changes its state in each of the ways that a forward can."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(8, 4)
        self.register_buffer("written", torch.zeros(8))
        self.register_buffer("replaced", torch.zeros(8))
        self.register_buffer("large", torch.zeros(600, 600))
        self.table = torch.zeros(4)
        self.calls, self.last = 0, None
        self.seen: list[Any] = []
        self.cache: dict[int, Any] = {}
        self.recent: deque[float] = deque(maxlen=3)
        self.nested = [{"sum": torch.zeros(1)}]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shift = self.written + self.replaced + self.large[0, 0] + self.table[0] + self.calls + self.nested[0]["sum"]
        scores = self.out(x - shift) * 4
        self.written.add_(1)
        self.replaced = self.replaced + 1
        self.large[0, 0] += 1
        self.table.data.add_(1)
        self.calls += 1
        self.last = self.extra = x
        self.seen.append(x)
        self.cache[len(x)] = x
        self.recent.append(1.0)
        self.nested[0]["sum"] += 1
        return scores


@pytest.mark.parametrize("way", ["native", "auto"])
@pytest.mark.filterwarnings("ignore::fo_onnx.errors.FallbackWarning")
def test_what_a_call_changes_is_put_back(way: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Remembers().eval()
    replaced, digest, expected = net.replaced, fingerprint(net), probs_of(net)

    with fo.Engine(net, runner=way, batch_size=7) as engine:
        rows = engine.generate(X).probs
        later = engine.predict(X[:5])

    # Every batch starts from the model's own values.
    assert row_spread(expected) > 0.05
    assert total_variation(expected, rows).max() < 1e-5
    assert total_variation(expected[:5], later).max() < 1e-5
    assert not any(t.any() for t in (net.written, net.replaced, net.large, net.table, net.nested[0]["sum"]))
    assert net.replaced is replaced, "the same tensor"
    assert (net.calls, net.last, net.seen, net.cache, len(net.recent)) == (0, None, [], {}, 0)
    assert not hasattr(net, "extra")
    assert fingerprint(net) == digest


@pytest.mark.parametrize("way", ["native", "auto", pytest.param("export", marks=pytest.mark.slow)])
def test_statistics_that_move_in_evaluation_mode_are_no_sampling(way: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = FollowsItsMean().eval()
    expected = probs_of(net, X + 2)

    assert total_variation(expected, use(way, net, X + 2, tmp_path)).max() < 1e-5

    assert int(net.calls) == 0
    assert not net.mean.any()


def test_it_stays_in_onnx() -> None:
    torch.manual_seed(0)
    dists = fo.generate(FollowsItsMean().eval(), X + 2, runner="onnx", batch_size=7)
    assert dists.meta["parity"]["passed"]
    assert dists.meta["parity"]["deterministic"]


def test_a_scriptmodule_is_put_back_as_well() -> None:
    torch.manual_seed(0)
    net = scripted(ScriptedCounter().eval())
    replaced = net.replaced
    fo.generate(net, X, runner="native", batch_size=7)
    assert (net.calls, float(net.mean.sum()), float(net.replaced.sum())) == (0, 0.0, 0.0)
    assert net.replaced is replaced


class ScriptedCounter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out, self.calls = nn.Linear(8, 4), 0
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("replaced", torch.zeros(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.out(x - self.mean)
        self.mean.add_(1.0)
        self.replaced = self.replaced + 1.0
        self.calls += 1
        return scores


def test_an_embedding_that_clips_its_weights() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(10, 8, max_norm=0.5), nn.Flatten(), nn.Linear(40, 4)).eval()
    before, rows = net[0].weight.detach().clone(), tokens(ROWS, 5, 10)
    expected = probs_of(net, rows)
    for runner in ("native", "onnx"):
        assert total_variation(expected, fo.generate(net, rows, runner=runner).probs).max() < 1e-5
        assert torch.equal(net[0].weight, before)


class ClippedLinear(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.weight.data = torch.renorm(self.weight.data, 2, 0, 0.3)
        return super().forward(x) * 6


def test_a_layer_that_replaces_the_memory_of_its_weights() -> None:
    """torch's exporter would end the process."""
    torch.manual_seed(0)
    net = ClippedLinear(8, 4).eval()
    before, address = net.weight.detach().clone(), net.weight.data_ptr()
    expected = probs_of(net)
    with pytest.warns(fo.FallbackWarning, match="replaces the memory of its weights or buffers when it is called"):
        dists = fo.generate(net, X)
    assert total_variation(expected, dists.probs).max() < 1e-6
    assert torch.equal(net.weight, before)
    assert net.weight.data_ptr() == address


class ReturnsItsBuffer(Mlp):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scores", torch.zeros(7, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores[: len(x)].copy_(super().forward(x))


def test_scores_in_a_buffer_of_the_model_are_not_those_of_the_next_batch() -> None:
    torch.manual_seed(0)
    net = ReturnsItsBuffer().eval()
    with torch.no_grad():
        want = torch.cat([torch.softmax(net(b).double(), 1) for b in torch.from_numpy(X).split(7)]).numpy()
    net.scores.zero_()
    assert total_variation(want, fo.generate(net, X, runner="native", batch_size=7).probs).max() < 1e-6


def test_lazy_layers_get_their_weights() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.LazyLinear(16), nn.Tanh(), nn.LazyLinear(4))
    dists = fo.generate(net, X, runner="native")
    assert type(net[0]) is nn.Linear
    assert total_variation(probs_of(net), dists.probs).max() < 1e-6


def test_large_buffers_are_copied_once_unless_they_are_written_to(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch_state, "LARGE_BYTES", 64)
    net, keeper = nn.Module(), StateKeeper()
    net.register_buffer("bank", torch.zeros(100))
    copies: list[int] = []
    clone = torch.Tensor.clone
    monkeypatch.setattr(torch.Tensor, "clone", lambda t, **options: copies.append(t.nbytes) or clone(t, **options))
    for _ in range(3):
        with keeper.keep(net):
            pass
    assert copies == [400]
    # The first write after all cannot be put back, which is said; those that follow are.
    with caplog.at_level(logging.WARNING), keeper.keep(net):
        net.bank.add_(1)
    assert "cannot be put back" in caplog.text
    with keeper.keep(net):
        net.bank.add_(1)
    assert float(net.bank[0]) == 1.0
