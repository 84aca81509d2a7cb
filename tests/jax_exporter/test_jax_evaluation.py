"""Models in evaluation mode, while the caller's stay as they are."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
from jax_libraries import equinox as eqx  # noqa: E402
from jax_nets import Cell, Net, X, call, closes_over, forward  # noqa: E402


class TestEvaluationMode:
    @pytest.mark.parametrize(
        "wrap",
        [lambda m: m, lambda m: (lambda x: m(x)), lambda m: jax.jit(lambda x: m(x)), lambda m: functools.partial(call, m),
         lambda m: closes_over([{"m": m}], lambda h, x: h[0]["m"](x)), lambda m: m.__call__],
    )  # fmt: skip
    def test_nnx(self, wrap: Any) -> None:
        net = Net()
        reference = Net()
        reference.eval()
        np.testing.assert_allclose(forward(wrap(net)), reference(X), atol=1e-6)
        assert not net.drop.deterministic, "the caller's is as it was"

    @pytest.mark.parametrize(
        "wrap",
        [lambda m: jax.vmap(m), lambda m: eqx.filter_vmap(m), lambda m: eqx.filter_jit(eqx.filter_vmap(m)),
         lambda m: jax.jit(jax.vmap(lambda x: m(x))), lambda m: jax.vmap(functools.partial(m, key=None))],
    )  # fmt: skip
    def test_equinox(self, wrap: Any) -> None:
        cell = Cell()
        expected = jax.vmap(eqx.nn.inference_mode(cell))(X)
        np.testing.assert_allclose(forward(wrap(cell)), expected, atol=1e-6)
        assert not cell.drop.inference, "the caller's is as it was"

    def test_a_module_held_by_name_at_the_top_of_a_script(self, tmp_path: Path) -> None:
        script = tmp_path / "script.py"
        script.write_text(
            "import jax, numpy as np\n"
            "from flax import nnx\n"
            "from fo_onnx.options import ModelOptions, OutputOptions\n"
            "from fo_onnx_jax.export import JaxExporter\n"
            "drop = nnx.Dropout(0.5, rngs=nnx.Rngs(0))\n"
            "def predict(x):\n    return drop(x)\n"
            "x = np.ones((4, 8), np.float32)\n"
            "raw = JaxExporter().native(predict, {'0': x}, 'auto', ModelOptions(), OutputOptions())\n"
            "assert (raw.forward({'0': x}) == x).all()\n"
            "assert not drop.deterministic and (np.asarray(predict(x)) != x).any()\n"
        )
        subprocess.run([sys.executable, str(script)], check=True, timeout=60)
