"""Programs of torch.export whose number of rows is built in: they run in such parts, natively and in ONNX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.conversion.parity import row_spread
from fo_onnx.distributions.probabilities import total_variation

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch_nets import Mlp, normal  # noqa: E402

SIZE, ROWS = 4, 10
RUNNERS = ("native", "onnx")


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = Mlp()

    def forward(self, x: torch.Tensor, z: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.body(x - 2 * z)}


class OfDict(Pair):
    def forward(self, rows: dict[str, torch.Tensor]) -> torch.Tensor:  # type: ignore[override]
        return self.body(rows["x"] - 2 * rows["z"])


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(20, 8), Mlp()

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(2 * self.embed(ids).mean(1))


class Squeezes(Mlp):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).squeeze(0)


class Counts(Mlp):
    """Counts its calls in a buffer that is too large to be copied for each call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(600, 600))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1.0)
        return super().forward(x) * self.calls[0, 0]


class Flattens(Mlp):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).reshape(2, -1)


def export(net: nn.Module, *rows: Any, **named: Any) -> Any:
    return torch.export.export(net.eval(), rows, named)


def zeros(rows: int = SIZE) -> torch.Tensor:
    return torch.zeros(rows, 8)


X, Z = normal(ROWS, 8), normal(ROWS, 8, seed=2)
IDS = np.random.default_rng(0).integers(0, 20, (ROWS, 6))
BOTH = {"z": Z, "x": X}

# What makes the program, its rows, and the module that it is of, called on them.
KINDS: dict[str, tuple[Callable[[nn.Module], Any], type[nn.Module], Any]] = {
    "4 rows": (lambda net: export(net, zeros()), Mlp, X),
    "1 row": (lambda net: export(net, zeros(1)), Mlp, X),
    "more rows than there are": (lambda net: export(net, zeros(64)), Mlp, X),
    "its module": (lambda net: export(net, zeros()).module(), Mlp, X),
    "two inputs": (lambda net: export(net, zeros(), zeros()), Pair, BOTH),
    "keywords": (lambda net: export(net, x=zeros(), z=zeros()), Pair, BOTH),
    "a dict": (lambda net: export(net, {"x": zeros(), "z": zeros()}), OfDict, BOTH),
    "tokens": (lambda net: export(net, torch.zeros(SIZE, 6, dtype=torch.long)), Tokens, IDS),
    "1 row, squeezed": (lambda net: export(net, zeros(1)), Squeezes, X),
    "a state": (lambda net: export(net, zeros()), Counts, X),
}


def made(kind: str) -> tuple[Any, Any, np.ndarray]:
    """Return a program, its rows, and the distributions that its module gives, which takes any number of rows."""
    make, net_type, data = KINDS[kind]
    torch.manual_seed(0)
    net = net_type().eval()
    program = make(net)
    tensors = {k: torch.from_numpy(v) for k, v in (data if isinstance(data, dict) else {"": data}).items()}
    with torch.no_grad():
        if net_type is OfDict:
            logits = net(tensors)
        elif net_type is Counts:
            logits = Mlp.forward(net, tensors[""])
        else:
            logits = net(**tensors) if isinstance(data, dict) else net(*tensors.values())
        logits = logits["logits"] if isinstance(logits, dict) else logits
        expected = torch.softmax(logits.double(), 1).numpy()
    assert row_spread(expected) > 0.02
    return program, data, expected


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_rows(kind: str, runner: str) -> None:
    program, data, expected = made(kind)
    with fo.Engine(program, runner=runner) as engine:
        dists = engine.generate(data)
        assert dists.meta["runner"]["kind"] == runner
        assert total_variation(expected, dists.probs).max() < 1e-5
        few = {k: v[:3] for k, v in data.items()} if isinstance(data, dict) else data[:3]
        assert total_variation(expected[:3], engine.predict(few)).max() < 1e-5


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_state_that_parts_do_not_hand_on(runner: str) -> None:
    program, _, expected = made("a state")
    repeated = np.tile(X, (5, 1))
    dists = fo.generate(program, repeated, runner=runner, batch_size=10)
    assert total_variation(np.tile(expected, (5, 1)), dists.probs).max() < 1e-5
    assert program.state_dict["calls"].sum() == 0


def test_files(tmp_path: Path) -> None:
    program, rows, expected = made("4 rows")
    torch.export.save(program, tmp_path / "net.pt2")
    model = fo.export(tmp_path / "net.pt2", rows, tmp_path / "net.onnx", trust=True)
    assert model.spec.fixed_batch == SIZE
    assert model.spec.inputs[0].shape == (SIZE, 8)
    for path in (tmp_path / "net.pt2", tmp_path / "net.onnx"):
        dists = fo.generate(path, rows, trust=True)
        assert dists.meta["engine"]["batch_size"] == SIZE
        assert total_variation(expected, dists.probs).max() < 1e-5
    assert fo.verify(tmp_path / "net.onnx", program, rows).passed


def test_programs_of_other_numbers_of_rows_are_others() -> None:
    _, rows, expected = made("4 rows")
    torch.manual_seed(0)
    net = Mlp()
    for size in (4, 5):
        dists = fo.generate(export(net, zeros(size)), rows, runner="onnx")
        assert dists.meta["engine"]["batch_size"] == size
        assert total_variation(expected, dists.probs).max() < 1e-5


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_program_that_does_not_keep_the_batch_axis(runner: str) -> None:
    with pytest.raises(
        fo.OutputError, match=r"shape \(2, 8\) for 4 rows, which are built into it; .* expected, shape \(4, …\)"
    ):
        fo.generate(export(Flattens(), zeros()), X, runner=runner)


def test_a_program_within_another_module() -> None:
    net = nn.Sequential(export(Mlp(), zeros()).module(), nn.ReLU())
    with pytest.raises(
        fo.DataError, match=r"a program of torch\.export for 4 rows: export it with a free batch axis, dynamic"
    ):
        fo.generate(net, X)
