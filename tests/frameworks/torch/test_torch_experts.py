"""Mixtures of experts: all experts on all tokens give what the chosen ones give, and a model keeps its own way to compute."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5.0")
from fo_onnx_torch.experts import IMPLEMENTATION, all_experts  # noqa: E402
from torch_attention import CASES  # noqa: E402
from torch_cases import seeded  # noqa: E402
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS  # noqa: E402


class Within(torch.nn.Module):
    """A model of transformers as a part of one of the user's own."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body

    def forward(self, ids: Any) -> Any:
        return self.body(ids).logits


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss"])
@pytest.mark.parametrize("implementation", ["grouped_mm", "eager"])
def test_all_experts_give_what_the_chosen_ones_give(name: str, implementation: str) -> None:
    case = seeded(CASES[name])()
    case.model.set_experts_implementation(implementation)
    net, ids = Within(case.model), torch.from_numpy(case.data["input_ids"])

    with torch.no_grad():
        expected = net(ids)
        with all_experts(net):
            assert case.model.get_experts_implementation() == {"": IMPLEMENTATION}
            given = net(ids)

    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)
    assert case.model.get_experts_implementation() == {"": implementation}
    assert IMPLEMENTATION not in ALL_EXPERTS_FUNCTIONS


def test_an_export_that_fails_puts_them_back_too() -> None:
    net = seeded(CASES["mixtral"])().model

    with pytest.raises(KeyboardInterrupt), all_experts(net):
        raise KeyboardInterrupt

    assert net.get_experts_implementation() == {"": "grouped_mm"}
    assert IMPLEMENTATION not in ALL_EXPERTS_FUNCTIONS
