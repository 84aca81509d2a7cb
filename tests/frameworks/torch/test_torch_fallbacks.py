"""Models that ONNX cannot stand in for run natively: with the right rows, the reason, and one warning."""

from __future__ import annotations

import linecache
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.conversion.parity import row_spread
from fo_onnx.distributions.probabilities import total_variation
from fo_onnx.errors import ExportError, FallbackWarning, ParityError

torch = pytest.importorskip("torch")
from torch.utils.data import DataLoader  # noqa: E402
from torch_nets import (  # noqa: E402
    FALLBACKS,
    ROWS,
    LostLengthGuard,
    Mlp,
    Sampling,
    Tokens,
    make,
    normal,
    scripted,
    tokens,
    truth,
)


def generated(model: Any, data: Any, **options: Any) -> tuple[fo.Distributions, list[str]]:
    """The rows, and the texts of the fallback warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dists = fo.generate(model, data, **options)
    others = [str(w.message) for w in caught if not issubclass(w.category, FallbackWarning)]
    assert not others
    assert all(Path(w.filename) == Path(__file__) for w in caught), "the warning points to the caller's line"
    return dists, [str(w.message) for w in caught]


@pytest.mark.parametrize("name", FALLBACKS)
def test_the_native_runner_stands_in(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    case, reason = make(name), FALLBACKS[name][1]
    expected = truth(case)
    assert row_spread(expected) >= 0.05

    dists, messages = generated(case.model, case.data, batch_size=7)

    assert dists.meta["runner"]["kind"] == "native"
    assert reason in dists.meta["runner"]["reason"]
    assert len(messages) == 1
    assert f"{type(case.model).__name__} runs natively, not in ONNX" in messages[0]
    assert reason in messages[0]
    assert total_variation(expected, dists.probs).max() < 1e-6
    assert capfd.readouterr() == ("", ""), "nothing of the failed try reaches the terminal"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[] if n in ("data_dependent_if", "lost_batch_guard", "inverse") else pytest.mark.slow)
        for n in FALLBACKS
    ],
)
def test_asked_for_onnx_it_is_an_error(name: str) -> None:
    case, reason = make(name), FALLBACKS[name][1]

    with pytest.raises((ExportError, ParityError)) as caught:
        fo.generate(case.model, case.data, runner="onnx", batch_size=7)

    assert reason in str(caught.value)
    assert type(case.model).__name__ in str(caught.value)


class Inverted(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.linalg.inv(x[:, :, None] * x[:, None, :] + torch.eye(8))[:, 0])


def test_the_older_exporter_prints_no_graph(capfd: pytest.CaptureFixture[str]) -> None:
    net = scripted(Inverted().eval())
    was_enabled = torch._C._jit_is_onnx_log_enabled()
    _, messages = generated(net, normal(ROWS, 8))
    assert "aten::linalg_inv" in messages[0]
    assert capfd.readouterr() == ("", "")
    assert torch._C._jit_is_onnx_log_enabled() == was_enabled


def test_export_writes_nothing_where_it_fails(tmp_path: Path) -> None:
    for name in ("data_dependent_if", "lost_batch_guard"):
        case = make(name)
        with pytest.raises((ExportError, ParityError)):
            fo.export(case.model, case.data, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_line_in_a_notebook_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, name = "def forward(self, x):\n    return x if x.sum() > 0 else -x\n", "<ipython-input-3-1f2e>"
    monkeypatch.setitem(linecache.cache, name, (len(code), None, code.splitlines(keepends=True), name))
    methods: dict[str, Any] = {}
    exec(compile(code, name, "exec"), methods)
    net = type("Net", (torch.nn.Module,), {"forward": methods["forward"]})()

    with pytest.raises(ExportError, match=rf"It happened in {name}, line 2: return x if x.sum\(\) > 0 else -x"):
        fo.export(net.eval(), normal(ROWS, 8), tmp_path / "net.onnx")


def test_a_net_that_samples_is_reported_and_never_compared_away() -> None:
    torch.manual_seed(0)
    net, rows = Sampling().eval(), normal(ROWS, 8)

    with pytest.raises(ParityError, match="samples in evaluation mode: it gives other rows each time"):
        fo.generate(net, rows, runner="onnx")
    dists, messages = generated(net, rows, tolerance=1.0)

    assert dists.meta["runner"]["kind"] == "native"
    assert "samples in evaluation mode" in dists.meta["runner"]["reason"]
    assert dists.meta["parity"]["deterministic"] is False
    assert dists.meta["parity"]["passed"] is False
    assert len(messages) == 1


def test_a_guard_that_is_lost_shows_on_the_way() -> None:
    """The first rows are short sequences, on which ONNX is right; on the first long ones its session fails."""
    torch.manual_seed(0)
    net = LostLengthGuard().eval()
    texts = [torch.from_numpy(tokens(1, 9 if i < 300 else 20, seed=i)[0]) for i in range(310)]
    loader = DataLoader(texts, batch_size=10)

    dists, messages = generated(net, loader, batch_size=10)

    assert dists.meta["parity"]["passed"]
    assert dists.meta["runner"]["kind"] == "onnx"
    assert dists.meta["runner"]["switched_at"] == 300
    assert len(messages) == 1
    assert "the native one continues from row 300" in messages[0]
    assert "running LostLengthGuard in ONNX Runtime failed" in dists.meta["runner"]["reason"]
    with torch.no_grad():
        expected = torch.cat([torch.softmax(net(b).double(), 1) for b in loader]).numpy()
    assert row_spread(expected) >= 0.05
    assert len(dists) == 310
    assert total_variation(expected, dists.probs).max() < 1e-5


def test_asked_for_onnx_a_failure_on_the_way_is_an_error() -> None:
    torch.manual_seed(0)
    texts = [torch.from_numpy(tokens(1, 9 if i < 300 else 20, seed=i)[0]) for i in range(310)]

    with pytest.raises(fo.RunError, match="running LostLengthGuard in ONNX Runtime failed") as caught:
        fo.generate(LostLengthGuard().eval(), DataLoader(texts, batch_size=10), runner="onnx", batch_size=10)

    assert "rows 300 to 309" in str(caught.value)
    assert len(caught.value.finished) == 300  # type: ignore[attr-defined]


class LostSizeGuard(Mlp):
    """Takes another way for batches of five; the way that is traced reads beyond a table on those."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("place", torch.tensor([9 if size == 5 else 0 for size in range(300)]))
        self.register_buffer("shift", torch.tensor([[0.5]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] == 5:
            return super().forward(x + 0.5)
        return super().forward(x + self.shift[self.place[x.shape[0]]])


def test_an_export_that_fails_on_one_batch_size_only() -> None:
    """Neither the batch size of the run nor those of the comparison are the one; the last batch is."""
    torch.manual_seed(0)
    net = LostSizeGuard().eval()
    rows = normal(265, 8)
    with torch.no_grad():
        expected = torch.softmax(net(torch.from_numpy(rows)).double(), 1).numpy()

    dists, messages = generated(net, rows, batch_size=20)

    assert dists.meta["parity"]["passed"]
    runner = dists.meta["runner"]
    assert (runner["kind"], runner["switched_at"]) == ("onnx", 260)
    assert "out of data bounds" in runner["reason"]
    assert len(messages) == 1
    assert total_variation(expected, dists.probs).max() < 1e-5


def test_asked_for_torch_there_is_no_reason_and_no_warning() -> None:
    case = make("mlp")

    dists, messages = generated(case.model, case.data, runner="native")

    assert messages == []
    assert dists.meta["runner"] == {"kind": "native", "reason": None, "foreign": [], "switched_at": None, "speed": None}
    assert total_variation(truth(case), dists.probs).max() < 1e-6


def test_the_native_runner_takes_every_batch_size() -> None:
    case = make("inverse")
    expected = truth(case)
    for size in (1, 2, 7, 100):
        dists = fo.generate(case.model, case.data, runner="native", batch_size=size)
        assert total_variation(expected, dists.probs).max() < 1e-6, size


def test_a_model_that_works_in_place_leaves_the_rows_alone() -> None:
    case = make("in_place")
    rows = case.data.copy()
    dists = fo.generate(case.model, case.data, runner="native")
    assert total_variation(truth(case), dists.probs).max() < 1e-5
    np.testing.assert_array_equal(rows, case.data)


class LoopsOverTime(Tokens):
    """Python's own loop over the steps of a sequence, which is traced as so many steps."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = torch.nn.GRUCell(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, e = torch.zeros(len(x), 16), self.embedding(x)
        for t in range(x.shape[1]):
            h = self.cell(e[:, t], h)
        return self.out(h)


@pytest.mark.slow
def test_a_loop_over_time_is_exported_for_its_length(tmp_path: Path) -> None:
    """Otherwise longer sequences would be cut off without a word."""
    torch.manual_seed(0)
    net = LoopsOverTime().eval()
    model = fo.export(net, tokens(20, 9), tmp_path / "loop.onnx")

    assert model.spec.inputs[0].shape == (None, 9)
    with pytest.raises(fo.DataError, match=r"rows have shape \(17,\), and its input .* takes rows of shape \(9\)"):
        fo.generate(model, tokens(20, 17))


def test_sequences_of_another_length_go_on_natively() -> None:
    torch.manual_seed(0)
    net = LoopsOverTime().eval()
    texts = [torch.from_numpy(tokens(1, 9 if i < 300 else 17, seed=i)[0]) for i in range(310)]
    loader = DataLoader(texts, batch_size=10)

    dists, messages = generated(net, loader, batch_size=10)

    assert dists.meta["runner"]["kind"] == "onnx"
    assert dists.meta["runner"]["switched_at"] == 300
    assert "takes rows of shape (9)" in dists.meta["runner"]["reason"]
    assert len(messages) == 1
    with torch.no_grad():
        expected = torch.cat([torch.softmax(net(b).double(), 1) for b in loader]).numpy()
    assert total_variation(expected, dists.probs).max() < 1e-5
