"""Numbers that are nearly 0 or 1 stay in the graph: what keeps a norm above 0 matters in rows of zeros alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import fo_onnx as fo
from fo_onnx.distributions.probabilities import total_variation

torch = pytest.importorskip("torch")
from fo_onnx_torch.exact_rules import exact_rules  # noqa: E402
from onnxscript import rewriter  # noqa: E402
from torch_nets import Mlp, normal  # noqa: E402


class Computes(Mlp):
    """An Mlp on what `function` makes of its rows."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.function(x))


def over_norm(x: torch.Tensor) -> torch.Tensor:
    return x / (x.norm(dim=1, keepdim=True) + 1e-8)


def over_root(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-12)


def less_than_nothing(x: torch.Tensor) -> torch.Tensor:
    return torch.log(x.abs() - -1e-10) / 10


def nearly_once(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(1e6 * (x * (1 + 5e-6) - x))


@pytest.mark.parametrize("function", [over_norm, over_root, less_than_nothing, nearly_once])
def test_small_numbers_count_in_rows_beyond_those_compared(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    torch.manual_seed(0)
    net, rows = Computes(function).eval(), normal(400, 8)
    rows[300:] = 0
    with torch.no_grad():
        expected = torch.softmax(net(torch.from_numpy(rows)).double(), 1).numpy()

    dists = fo.generate(net, rows, runner="onnx", tolerance=1e-2)

    assert total_variation(expected, dists.probs).max() < 1e-2


def test_the_optimizer_is_put_back() -> None:
    rules = rewriter._DEFAULT_REWRITE_RULES
    with pytest.raises(KeyError), exact_rules():
        assert 0 < len(rewriter._DEFAULT_REWRITE_RULES) < len(rules)
        raise KeyError
    assert rewriter._DEFAULT_REWRITE_RULES is rules
