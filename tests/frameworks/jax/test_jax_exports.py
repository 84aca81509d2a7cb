"""Models of every kind through the verbs: exported, or native where that is quicker."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from jax import lax  # noqa: E402
from jax_libraries import haiku as hk  # noqa: E402
from jax_nets import EXPORTER, KEY, WEIGHT, Cell, Dense, Net, Trained, X, apply_dict, state_of, with_state  # noqa: E402

TABLE = jnp.asarray(np.random.default_rng(2).standard_normal((20, 3), dtype=np.float32) * 3)
ROWS = np.random.default_rng(3).standard_normal((30, 3), dtype=np.float32) * 2


def of_dict(batch: Any) -> Any:
    return batch["image"]["left"] @ WEIGHT + batch["image"]["right"] * batch["scale"]


def in_halves(x: Any) -> Any:
    return jnp.tanh(x) @ (3 * WEIGHT).astype(jnp.bfloat16)


EXPORTS: dict[str, Callable[[], tuple[Any, Any, dict[str, Any]]]] = {
    "linen": lambda: (Trained(), ROWS, {"params": Trained().init({"params": KEY, "dropout": KEY}, X, train=False)}),
    "train state": lambda: (state_of(Dense()), ROWS, {}),
    "haiku": lambda: (
        hk.transform_with_state(with_state), ROWS, {"params": hk.transform_with_state(with_state).init(KEY, X, True)}
    ),
    "equinox": lambda: (jax.vmap(Cell()), ROWS, {}),
    "partial": lambda: (apply_dict, ROWS, {"params": {"w": 2 * WEIGHT}}),
    "nested dict": lambda: (of_dict, {"image": {"left": ROWS, "right": ROWS[:, :2]}, "scale": ROWS[:, :1]}, {}),
    "tokens": lambda: (lambda t: TABLE[t].mean(1), np.random.default_rng(4).integers(0, 20, (30, 6)), {}),
    "one of two outputs": lambda: (
        jax.jit(lambda x: (jnp.sin(x), x @ WEIGHT)), ROWS, {"output_name": "1"}
    ),
    "bfloat16": lambda: (in_halves, ROWS, {}),
    "float64 rows": lambda: (lambda x: x @ WEIGHT, ROWS.astype(np.float64), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPORTS)
def test_exports(name: str) -> None:
    model, data, options = EXPORTS[name]()
    result = fo.generate(model, data, runner="onnx", **options)
    expected = fo.generate(model, data, runner="native", **options)
    assert result.meta["runner"]["kind"] == "onnx"
    assert expected.meta["runner"]["kind"] == "native"
    parity = result.meta["parity"]
    assert parity["max_tv"] < 1e-5
    assert parity["row_spread"] > 0.05, "rows this close together agree with anything"
    assert (parity["original_gap"] is not None) == (name == "bfloat16")
    np.testing.assert_allclose(result.probs, expected.probs, atol=1e-5)


class TestNativeOnly:
    def test_a_loop_that_onnx_runtime_runs_slowly(self) -> None:
        def loops(x: Any) -> Any:
            state, _ = lax.scan(lambda h, _: (jnp.sin(h @ (WEIGHT @ WEIGHT.T)), None), x, length=40)
            return {"logits": state, "aside": x}

        reason = EXPORTER.prefer_native(loops, {"0": X})
        assert reason is not None
        assert "lax.scan over 40 steps" in reason
        result = fo.generate(loops, ROWS)
        assert (result.meta["runner"]["kind"], result.meta["runner"]["reason"]) == ("native", reason)

    def test_nothing_speaks_against_onnx(self) -> None:
        def branches(x: Any) -> Any:
            return jnp.tanh(x) if x.sum() > 0 else x

        for model in (Net(), jax.vmap(Cell()), lambda x: (x @ WEIGHT, x), branches):
            assert EXPORTER.prefer_native(model, {"0": X}) is None


def test_an_export_keeps_no_weight(tmp_path: Path) -> None:
    def export() -> weakref.ref[Any]:
        weight = 2 * WEIGHT
        fo.export(lambda x: jax.nn.silu(x) @ weight, ROWS, tmp_path / "model.onnx")
        return weakref.ref(weight)

    weight = export()
    gc.collect()
    assert weight() is None
