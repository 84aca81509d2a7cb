"""Which objects are JAX models, and the inputs that they take."""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from fo_onnx.contracts.spec import InputSignature
from fo_onnx.errors import ModelError

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from jax_libraries import haiku as hk  # noqa: E402
from jax_nets import (  # noqa: E402
    EXPORTER,
    MODELS,
    NUMPY_WEIGHT,
    WEIGHT,
    Cell,
    Dense,
    Holder,
    Net,
    NumpyHolder,
    X,
    apply_dict,
    forward,
    state_of,
    transformed,
    with_state,
)


@pytest.mark.parametrize("name", MODELS)
class TestEveryKind:
    def test_it_is_accepted_and_runs(self, name: str) -> None:
        model = MODELS[name]()
        assert EXPORTER.accepts(model)
        whole = forward(model)
        assert whole.shape[0] == 5
        np.testing.assert_allclose(whole[:2], forward(model, X[:2]), atol=1e-6)


@pytest.mark.parametrize(
    "other",
    [None, 3, X, WEIGHT, np.tanh, jnp, dict, Holder, lambda x: np.tanh(x @ NUMPY_WEIGHT), NumpyHolder(NUMPY_WEIGHT),
     functools.partial(apply_dict, {"w": NUMPY_WEIGHT}), lambda x: x @ x],
)  # fmt: skip
def test_others_are_not_accepted(other: Any) -> None:
    assert not EXPORTER.accepts(other)


def test_modules_without_parameters_are_accepted_and_ask_for_them() -> None:
    for module, name in ((Dense(), "Dense"), (hk.transform(transformed), "transformed")):
        assert EXPORTER.accepts(module)
        with pytest.raises(ModelError, match=rf"{name} holds no parameters: give .* with params="):
            EXPORTER.signature(module)
        with pytest.raises(ModelError, match="params="):
            forward(module)
    with pytest.raises(ModelError, match=r"with_state holds no parameters: give \(params, state\)"):
        EXPORTER.signature(hk.transform_with_state(with_state))


def test_torch_models_are_others() -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Linear(3, 2)
    assert not EXPORTER.accepts(net)
    assert not EXPORTER.accepts(lambda x: net(x))


@pytest.mark.slow
def test_keras_models_on_the_jax_backend_are_keras_own() -> None:
    program = (
        "import os; os.environ['KERAS_BACKEND'] = 'jax'\n"
        "import jax.numpy as jnp, keras\n"
        "from fo_onnx_jax.plugin import JaxExporter\n"
        "net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])\n"
        "assert not JaxExporter().accepts(net)\n"
        "assert not JaxExporter().accepts(lambda x: jnp.tanh(net(x)))\n"
        "assert JaxExporter().accepts(lambda x: jnp.tanh(keras.ops.relu(x)))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, capture_output=True)


@pytest.mark.parametrize(
    ("model", "required", "optional"),
    [
        (jax.jit(lambda left, right: left), ("left", "right"), ()),
        (jax.vmap(lambda image, train: image), ("image",), ()),
        (jax.vmap(Cell()), ("x",), ()),
        (Cell(), ("x",), ()),
        (Net(), ("x",), ()),
        (lambda x, key: jnp.tanh(x), ("x", "key"), ()),
        (state_of(Dense()), ("x",), ()),
        (functools.partial(apply_dict, {"w": WEIGHT}), ("x",), ()),
        (lambda x, scale=1.0, training=True: jnp.tanh(x), ("x",), ("scale",)),
    ],
)
def test_signature(model: Any, required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    assert EXPORTER.signature(model) == InputSignature(required, optional)


def test_versions() -> None:
    versions = EXPORTER.versions()
    assert versions["jax"] == jax.__version__
    assert {"jaxlib", "flax", "equinox", "dm-haiku"} <= set(versions)
    program = (
        "import sys; from fo_onnx_jax.plugin import JaxExporter; v = JaxExporter().versions()\n"
        "assert set(v) == {'jax', 'jaxlib', 'tensorflow', 'tf2onnx'}, v"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
