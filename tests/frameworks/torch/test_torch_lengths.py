"""Lengths of token sequences stay free, and so do the axes of other inputs that belong to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.distributions.probabilities import total_variation

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from torch_nets import normal, scaled, tokens  # noqa: E402


class Masked(nn.Module):
    """The mean of the tokens that a mask (n, length) or (n, length, length) leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(50, 8), scaled(nn.Linear(8, 4), 6)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        shares = mask if mask.ndim == 2 else mask.sum(1)
        return self.out((self.embedding(ids) * shares[..., None]).sum(1) / shares.sum(1, keepdim=True))


class BesideFeatures(nn.Module):
    """Tokens, and as many features as there are tokens in the first rows."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(100, 8), scaled(nn.Linear(8, 4), 6)
        self.features = nn.Linear(12, 4)

    def forward(self, ids: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        return self.out(self.embedding(ids).mean(1)) + self.features(features)


def padded(dtype: torch.dtype, per_query: bool) -> Any:
    """Return a function that pads rows of tokens to the longest of their batch."""

    def collate(rows: list[np.ndarray]) -> dict[str, torch.Tensor]:
        length = max(map(len, rows))
        ids, mask = torch.zeros(len(rows), length, dtype=torch.long), torch.zeros(len(rows), length, dtype=dtype)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.from_numpy(row)
            mask[i, : len(row)] = 1
        return {"ids": ids, "mask": mask[:, :, None] * mask[:, None, :] if per_query else mask}

    return collate


@pytest.mark.parametrize(
    ("dtype", "per_query"),
    [(torch.float32, False), (torch.float32, True), pytest.param(torch.bool, False, marks=pytest.mark.slow)],
)
def test_masks_that_a_loader_pads_one_by_one(dtype: torch.dtype, per_query: bool) -> None:
    torch.manual_seed(0)
    net = Masked().eval()
    rows = [np.random.default_rng(i).integers(1, 50, 4 + i // 20) for i in range(300)]
    data = DataLoader(rows, batch_size=20, collate_fn=padded(dtype, per_query))
    with torch.no_grad():
        expected = torch.cat([torch.softmax(net(**batch).double(), 1) for batch in data]).numpy()

    dists = fo.generate(net, data)

    assert dists.meta["runner"]["kind"] == "onnx"
    assert dists.meta["runner"]["switched_at"] is None
    assert total_variation(expected, dists.probs).max() < 1e-5


def test_features_as_many_as_the_tokens_stay_as_many(tmp_path: Any) -> None:
    net = BesideFeatures().eval()
    rows = {"ids": tokens(23, 12), "features": normal(23, 12)}

    model = fo.export(net, rows, tmp_path / "net.onnx")

    assert [i.shape for i in model.spec.inputs] == [(None, None), (None, 12)]
    longer = {"ids": tokens(23, 17), "features": normal(23, 12)}
    with torch.no_grad():
        logits = net(*(torch.from_numpy(a) for a in longer.values()))
    expected = torch.softmax(logits.double(), 1).numpy()
    assert total_variation(expected, fo.generate(model, longer).probs).max() < 1e-5
