"""What a torch module's fingerprint does not see is seen by the rows: in runs that are resumed, and of the export cache."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch_nets import scripted

import fo_onnx as fo

X = np.random.default_rng(0).standard_normal((1000, 4)).astype(np.float32)


class Configured(nn.Module):
    """Reads a number in a plain dict."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.config = {"scale": 3.0}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * self.config["scale"]

    def change(self) -> None:
        self.config["scale"] *= -1


class Listed(nn.Module):
    """Holds a module in a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = [nn.Linear(4, 3)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 3 * self.parts[0](x)

    def change(self) -> None:
        with torch.no_grad():
            self.parts[0].weight.neg_()


class Wrap:
    """An object over a module, which is wrapped once more."""

    def __init__(self, net: nn.Module) -> None:
        self.holder = Holder(net)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.holder.net(x), 1)


class Holder:
    def __init__(self, net: nn.Module) -> None:
        self.net = net


def configured() -> tuple[Callable[..., torch.Tensor], Callable[[], None]]:
    net = Configured().eval()
    return net, net.change


def listed() -> tuple[Callable[..., torch.Tensor], Callable[[], None]]:
    net = Listed().eval()
    return net, net.change


def wrapped() -> tuple[Callable[..., torch.Tensor], Callable[[], None]]:
    net = Configured().eval()
    return Wrap(net).predict, net.change


@pytest.fixture(params=[configured, listed, wrapped], ids=lambda make: make.__name__)
def model_and_change(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Callable[..., torch.Tensor], Callable[[], None]]:
    """A model, and what changes its weights, or changes them back."""
    monkeypatch.setenv("FO_ONNX_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    torch.manual_seed(0)
    return request.param()


def answer(model: Callable[..., torch.Tensor]) -> np.ndarray:
    with torch.no_grad():
        rows = model(torch.from_numpy(X))
    return (torch.softmax(rows, 1) if isinstance(model, nn.Module) else rows).numpy()


class Rows(Dataset):
    """Rows of which one cannot be read."""

    def __init__(self, rows: object = X, *, broken: int | None = None) -> None:
        self.rows, self.broken = rows, broken

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> torch.Tensor:
        if position == self.broken:
            raise OSError("the disk is failing")
        return torch.as_tensor(self.rows[position])


def loader(**how: int) -> DataLoader:
    return DataLoader(Rows(**how), batch_size=50)


@pytest.mark.parametrize("runner", ["auto", "native"])
@pytest.mark.parametrize("data", [Rows, pytest.param(loader, marks=pytest.mark.slow)], ids=lambda data: data.__name__)
def test_a_model_that_changed_out_of_sight_does_not_go_on(model_and_change, runner, data, tmp_path) -> None:
    (model, change), out = model_and_change, tmp_path / "d.parquet"
    with pytest.raises(fo.DataError, match=r"resume=True"):
        fo.generate(model, data(broken=700), out=out, runner=runner)
    change()
    with pytest.raises(fo.ResumeError, match=r"the model gives other rows .* row 0 \(id 0\) .*256 of 256"):
        fo.generate(model, data(), out=out, resume=True, runner=runner)
    change()
    resumed = fo.generate(model, data(), out=out, resume=True, runner=runner)
    assert resumed.meta["runner"]["kind"] == ("native" if runner == "native" else "onnx")
    np.testing.assert_allclose(resumed.probs, answer(model), atol=1e-6)


@pytest.mark.parametrize("runner", ["auto", "onnx"])
def test_a_cached_export_of_a_model_that_changed_out_of_sight_is_not_used(model_and_change, runner) -> None:
    model, change = model_and_change
    before = fo.generate(model, X, runner=runner)
    change()
    after = fo.generate(model, X, runner=runner)
    assert after.meta["runner"]["kind"] == "onnx"
    assert after.meta["engine"]["export"] == "new"
    np.testing.assert_allclose(after.probs, answer(model), atol=1e-6)
    assert np.abs(after.probs - before.probs).max() > 0.1


def traced(net: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an LSTM's checks of shapes are traced as they come out
        return torch.jit.trace(net, torch.zeros(2, 4))


def frozen(net: nn.Module) -> nn.Module:
    return torch.jit.freeze(scripted(net))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.linear = nn.LSTM(2, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.cell(x.reshape(-1, 2, 2))[0][:, -1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("compiled", [scripted, traced, frozen], ids=lambda how: how.__name__)
@pytest.mark.parametrize("net", [lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), Recurrent])
def test_a_script_module_is_resumed_after_its_first_export(compiled, net, monkeypatch, tmp_path) -> None:
    """torch's exporter of scripts rewrites their code; all that are scripted from one class share it."""
    monkeypatch.setenv("FO_ONNX_CACHE_DIR", str(tmp_path / "cache"))
    torch.manual_seed(0)
    plain, out = net().eval(), tmp_path / "d.parquet"
    model, same, code = compiled(plain), compiled(plain), compiled(plain).code
    with pytest.raises(fo.DataError, match=r"resume=True"):
        fo.generate(model, Rows(broken=700), out=out)
    assert model.code == same.code == compiled(plain).code == code
    resumed = fo.generate(model, Rows(), out=out, resume=True)
    assert resumed.meta["runner"]["kind"] == "onnx"
    np.testing.assert_allclose(resumed.probs, answer(plain), atol=1e-6)
    assert fo.generate(same, Rows(), out=out, resume=True).equals(resumed)


class FailsOnLongTexts(nn.Module):
    """Takes another way for long texts, which tracing with short ones leaves out: a table ends there."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.linear = nn.Embedding(50, 8), nn.Linear(8, 3)
        self.register_buffer("place", torch.tensor([0] * 12 + [9] * 12))
        self.register_buffer("shift", torch.tensor([[0.5]]))
        self.config = {"scale": 3.0}

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        pooled = self.embedding(tokens).mean(1) * self.config["scale"]
        shift = 0.5 if tokens.shape[1] > 11 else self.shift[self.place[tokens.shape[1]]]
        return self.linear(pooled + shift)


@pytest.mark.filterwarnings("ignore:.*the native one continues from row 300")
def test_a_run_that_went_over_to_the_native_runner_is_resumed(tmp_path) -> None:
    torch.manual_seed(0)
    net, out = FailsOnLongTexts().eval(), tmp_path / "d.parquet"
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 50, 9 if i < 300 else 20) for i in range(400)]

    def loader_of_texts(**how: int) -> DataLoader:
        return DataLoader(Rows(texts, **how), batch_size=10)

    with pytest.raises(fo.DataError, match=r"resume=True"):
        fo.generate(net, loader_of_texts(broken=350), out=out, batch_size=10)
    net.config["scale"] = -3.0
    with pytest.raises(fo.ResumeError, match="the model gives other rows"):
        fo.generate(net, loader_of_texts(), out=out, resume=True)
    net.config["scale"] = 3.0
    resumed = fo.generate(net, loader_of_texts(), out=out, resume=True)
    assert resumed.meta["runner"]["switched_at"] == 300
    with torch.no_grad():
        expected = torch.cat([torch.softmax(net(batch), 1) for batch in loader_of_texts()]).numpy()
    np.testing.assert_allclose(resumed.probs, expected, atol=1e-6)
