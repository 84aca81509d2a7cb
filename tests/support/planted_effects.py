"""Ways in which a row can depend on the rows beside it, for every framework: each takes its functions and logits (n, k)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MIXERS: dict[str, Callable[[Any, Any], Any]] = {
    "centred": lambda o, z: z - o.mean(z, 0),
    "standardised": lambda o, z: z / o.sqrt(o.mean(z * z, 0)),
    "summed": lambda o, z: z + 0.1 * o.sum(z, 0),
    "scaled by the largest": lambda o, z: 5 * z / o.max(o.abs(z)),
    "rounded by the largest": lambda o, z: o.round(20 * z / o.max(o.abs(z))) / 4,
    "less the first": lambda o, z: z - z[:1],
    "less the next": lambda o, z: z - o.concatenate([z[1:], z[:1]], 0),
    "ranked": lambda o, z: 0.1 * o.sum(o.sign(z[:, None] - z[None]), 1),
    "normalised over the batch": lambda o, z: 5 * o.exp(z) / o.sum(o.exp(z), 0),
    "attending": lambda o, z: z + 0.05 * o.einsum("ij,jk->ik", o.einsum("ik,jk->ij", z, z), z),
}
