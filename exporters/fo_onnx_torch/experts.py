"""Mixtures of experts of transformers, in a form that can be exported.

Their own forms choose the tokens of each expert by the data, which no graph can follow. The one that transformers offers for
graphs, ``batched_mm``, copies the weights of the chosen experts for each token: with 32 experts of 50 MB in all, 8 for each of
128 tokens, these are over 2 GB, and ten times the time of torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

IMPLEMENTATION = "fo_onnx_all_experts"


@contextlib.contextmanager
def all_experts(module: torch.nn.Module) -> Iterator[None]:
    """Let the mixtures of experts within `module` compute `mix_all_experts`; put their own way back afterwards."""
    models: list[Any] = [m for m in module.modules() if getattr(m, "_can_set_experts_implementation", bool)()]
    if not models:
        yield
        return
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    # Models within a model can share its configuration: all are read before the first one is set.
    implementations = [m.get_experts_implementation() for m in models]
    ALL_EXPERTS_FUNCTIONS[IMPLEMENTATION] = mix_all_experts
    try:
        for model in models:
            model.set_experts_implementation(IMPLEMENTATION)
        yield
    finally:
        for model, implementation in zip(models, implementations, strict=True):
            model.set_experts_implementation(implementation)
        ALL_EXPERTS_FUNCTIONS.pop(IMPLEMENTATION)


def mix_all_experts(experts: Any, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the weighted sum (tokens, width) of the chosen experts' answers, for which all experts are run on all tokens.

    Args:
        experts: A module of the protocol of transformers' ``use_experts_implementation``, with weights (experts, …).
        hidden: (tokens, width).
        chosen: The experts (tokens, chosen) of each token.
        weights: Their weights (tokens, chosen).
    """

    def project(x: torch.Tensor, name: str) -> torch.Tensor:
        matrix: torch.Tensor = getattr(experts, name)
        product = x @ (matrix if experts.is_transposed else matrix.mT)
        if not experts.has_bias:
            return product
        bias: torch.Tensor = getattr(experts, f"{name}_bias")
        return product + bias[:, None]

    count = len(experts.down_proj)
    if experts.has_gate:
        # Gates are written for two axes.
        inner = experts._apply_gate(project(hidden, "gate_up_proj").flatten(0, 1)).unflatten(0, (count, -1))
    else:
        inner = experts.act_fn(project(hidden, "up_proj"))
    answers = project(inner, "down_proj")
    if experts.has_post_expert_norm:
        answers = experts.post_expert_norm(answers)
    one_hot = torch.nn.functional.one_hot(chosen, count).to(weights.dtype)
    shares = (one_hot * weights[..., None]).sum(1)
    return (answers * shares.T[..., None]).sum(0).to(hidden.dtype)
