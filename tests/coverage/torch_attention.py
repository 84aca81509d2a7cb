"""torch's cases with attention and experts: nets over tokens and images, of this file and of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch_nets import ROWS, Case, normal, scaled, tokens

LENGTH = 12


class Attends(nn.Module):
    """One layer of attention over token ids.

    Args:
        mask_of: Makes the mask (n, 1, 1 or length, length) of what is given as `mask` (n, length).
        shape: Axes between batch and length.
        key_heads: Heads of keys and values, if they are fewer.
        options: Arguments of `scaled_dot_product_attention`.
    """

    def __init__(
        self,
        mask_of: Callable[[torch.Tensor], torch.Tensor] | None = None,
        shape: tuple[int, ...] = (2,),
        key_heads: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.mask_of, self.shape, self.options = mask_of, shape, options
        self.key_shape = shape if key_heads is None else (*shape[:-1], key_heads)
        heads = int(np.prod(shape))
        self.embedding = nn.Embedding(100, 16)
        self.query = nn.Linear(16, heads * 8)
        self.key, self.value = (nn.Linear(16, int(np.prod(self.key_shape)) * 8) for _ in range(2))
        self.out = scaled(nn.Linear(heads * 8, 4), 40)
        self.beside = scaled(nn.Linear(16, 4), 4)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        x = self.embedding(ids)
        query, key, value = (
            layer(x).unflatten(-1, (*shape, 8)).movedim(1, -2)
            for layer, shape in ((self.query, self.shape), (self.key, self.key_shape), (self.value, self.key_shape))
        )
        if mask is not None and self.mask_of is not None:
            mask = self.mask_of(mask)
            mask = mask.reshape(len(mask), *(1 for _ in self.shape), *mask.shape[-2:])
        answer = scaled_dot_product_attention(query, key, value, attn_mask=mask, **self.options)
        return self.out(answer.movedim(-2, 1).flatten(2).mean(1)) + self.beside(x.mean(1))


def as_bool(mask: torch.Tensor) -> torch.Tensor:
    return mask[:, None, None].bool()


def as_infinity(mask: torch.Tensor) -> torch.Tensor:
    return torch.zeros(mask.shape).masked_fill(mask == 0, -torch.inf)[:, None, None]


def as_lowest(mask: torch.Tensor) -> torch.Tensor:
    """A mask of which torch itself does not call a row wholly masked."""
    return ((1 - mask.float()) * torch.finfo(torch.float32).min)[:, None, None]


def per_query(mask: torch.Tensor) -> torch.Tensor:
    """A mask (n, 1, length, length): what is padding sees nothing, and is not seen."""
    return mask.bool()[:, None, :, None] & mask.bool()[:, None, None, :]


def masks() -> np.ndarray:
    """Masks (n, length): whole, padded, and of texts of no token."""
    mask = np.ones((ROWS, LENGTH), np.int64)
    mask[1::3, 7:] = 0
    mask[2::5] = 0
    return mask


class Heads(nn.Module):
    """torch's own attention module, with a mask of padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.out = scaled(nn.Linear(16, 4), 10)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids)
        answer, _ = self.attention(x, x, x, key_padding_mask=mask == 0, need_weights=False)
        return self.out((answer + x).mean(1))


def attends(masked: bool = True, **arguments: Any) -> Callable[[], Case]:
    """A case of `Attends`."""

    def made() -> Case:
        rows = {"ids": tokens(ROWS, LENGTH)} | ({"mask": masks()} if masked else {})
        return Case(Attends(**arguments).eval(), rows, lambda m, r: m(**r))

    return made


def heads() -> Case:
    # A text of no token is NaN in this module's own fast path.
    mask = np.where(masks().any(axis=1, keepdims=True), masks(), 1)
    return Case(Heads().eval(), {"ids": tokens(ROWS, LENGTH), "mask": mask}, lambda m, r: m(**r))


def hiera() -> Case:
    """Attention within windows: five axes."""
    from transformers import HieraConfig, HieraForImageClassification

    config = HieraConfig(
        embed_dim=8, image_size=[32, 32], patch_size=[3, 3], patch_stride=[2, 2], patch_padding=[1, 1], depths=[1, 1],
        num_heads=[1, 2], query_stride=[2, 2], num_query_pool=1, masked_unit_size=[4, 4],
        masked_unit_attention=[True, False], num_labels=5,
    )  # fmt: skip
    net = HieraForImageClassification(config).eval()
    scaled(net.classifier, 60)
    return Case(net, normal(ROWS, 3, 32, 32), lambda m, r: m(pixel_values=r).logits)


def experts(family: str, **sizes: Any) -> Callable[[], Case]:
    """A mixture of experts of transformers, of which each token has two."""

    def made() -> Case:
        import transformers

        config = getattr(transformers, f"{family}Config")(
            vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=48, max_position_embeddings=64, num_labels=4, pad_token_id=0, bos_token_id=1, eos_token_id=2,
            num_experts_per_tok=2, **sizes,
        )  # fmt: skip
        net = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
        with torch.no_grad():
            for parameter in net.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(6)
        mask = np.ones((ROWS, LENGTH), np.int64)
        mask[1::3, 7:] = 0
        rows = {"input_ids": np.where(mask, 3 + tokens(ROWS, LENGTH) % 97, 0), "attention_mask": mask}
        return Case(net, rows, lambda m, r: m(**r).logits)

    return made


def helium() -> Case:
    """Norms of padding, whose embedding is 0, with 1e-8 below the root."""
    from transformers import HeliumConfig, HeliumForSequenceClassification

    config = HeliumConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        intermediate_size=48, num_labels=4, pad_token_id=0,
    )  # fmt: skip
    net = HeliumForSequenceClassification(config).eval()
    scaled(net.score, 20)
    mask = masks()
    rows = {"input_ids": np.where(mask, 3 + tokens(ROWS, LENGTH) % 97, 0), "attention_mask": mask}
    return Case(net, rows, lambda m, r: m(**r).logits)


CASES: dict[str, Callable[[], Case]] = {
    "attention": attends(masked=False),
    "attention_bool_mask": attends(mask_of=as_bool),
    "attention_infinite_mask": attends(mask_of=as_infinity),
    "attention_lowest_mask": attends(mask_of=as_lowest),
    "attention_mask_per_query": attends(mask_of=per_query),
    "attention_causal": attends(masked=False, is_causal=True),
    "attention_scale": attends(mask_of=as_bool, scale=0.7),
    "attention_three_axes": attends(mask_of=as_bool, shape=()),
    "attention_five_axes": attends(mask_of=as_bool, shape=(3, 2)),
    "attention_shared_keys": attends(mask_of=as_bool, shape=(6,), key_heads=2, enable_gqa=True),
    "attention_shared_keys_five_axes": attends(masked=False, shape=(2, 4), key_heads=2, enable_gqa=True),
    "attention_module": heads,
    "hiera": hiera,
    "helium": helium,
    "mixtral": experts("Mixtral", num_local_experts=4),
    "qwen3_moe": experts("Qwen3Moe", num_experts=4, moe_intermediate_size=24, head_dim=8),
    "gpt_oss": experts("GptOss", num_local_experts=4, head_dim=8, sliding_window=8),
}
