"""Parameters that are no part of the model: `params=`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.contracts.spec import InputSignature
from fo_onnx.errors import ModelError, OptionError

jax = pytest.importorskip("jax")
from jax_libraries import equinox as eqx  # noqa: E402
from jax_libraries import haiku as hk  # noqa: E402
from jax_libraries import nnx, train_state  # noqa: E402
from jax_nets import (  # noqa: E402
    EXPORTER,
    KEY,
    NUMPY_WEIGHT,
    WEIGHT,
    Cell,
    Dense,
    Net,
    Trained,
    TrainsByDefault,
    X,
    apply_dict,
    forward,
    makes_a_function,
    state_of,
    transformed,
    with_state,
)


class TestBound:
    def test_a_function(self) -> None:
        model = EXPORTER.bind_params(apply_dict, {"w": WEIGHT})
        assert EXPORTER.signature(model) == InputSignature(("x",))
        np.testing.assert_allclose(forward(model), X @ NUMPY_WEIGHT, atol=1e-6)

    @pytest.mark.parametrize("module", [Trained(), TrainsByDefault()])
    def test_a_linen_module_is_told_that_it_is_not_trained(self, module: Any) -> None:
        variables = module.init({"params": KEY, "dropout": KEY}, X, train=True)
        model = EXPORTER.bind_params(module, variables)
        assert EXPORTER.signature(model) == InputSignature(("x",))
        expected = module.apply(variables, X, train=False)
        np.testing.assert_allclose(forward(model), expected, atol=1e-6)

    def test_a_linen_module_with_bare_parameters(self) -> None:
        module = Dense()
        variables = module.init(KEY, X)
        for params in (variables, variables["params"], state_of(module)):
            np.testing.assert_allclose(
                forward(EXPORTER.bind_params(module, params)), module.apply(variables, X), atol=1e-6
            )

    def test_a_train_state_with_batch_statistics(self) -> None:
        class State(train_state.TrainState):  # type: ignore[misc]
            batch_stats: Any

        import optax

        module = Trained()
        variables = module.init(KEY, X, train=False)
        variables["batch_stats"] = jax.tree.map(lambda a: a + 0.7, variables["batch_stats"])
        state = State.create(apply_fn=module.apply, tx=optax.sgd(0.1), **variables)
        expected = module.apply(variables, X, train=False)
        for model in (state, EXPORTER.bind_params(module, state)):
            np.testing.assert_allclose(forward(model), expected, atol=1e-6)

    @pytest.mark.parametrize("without_rng", [False, True])
    def test_haiku(self, without_rng: bool) -> None:
        pair = hk.transform(transformed)
        params = pair.init(KEY, X)
        model = EXPORTER.bind_params(hk.without_apply_rng(pair) if without_rng else pair, params)
        assert EXPORTER.signature(model) == InputSignature(("x",))
        np.testing.assert_allclose(forward(model), pair.apply(params, None, X), atol=1e-6)

    @pytest.mark.parametrize("without_rng", [False, True])
    def test_haiku_with_state(self, without_rng: bool) -> None:
        pair = hk.transform_with_state(with_state)
        params, state = pair.init(KEY, X, True)
        model = EXPORTER.bind_params(hk.without_apply_rng(pair) if without_rng else pair, (params, state))
        assert EXPORTER.signature(model) == InputSignature(("x",))
        np.testing.assert_allclose(forward(model), pair.apply(params, state, None, X, False)[0], atol=1e-6)
        with pytest.raises(OptionError, match=r"made by transform_with_state, so that \(params, state\) was expected"):
            EXPORTER.bind_params(pair, params)

    def test_both_parts_of_a_module(self) -> None:
        for whole in (eqx.filter_vmap(Cell()), eqx.filter_jit(eqx.filter_vmap(Cell()))):
            arrays, static = eqx.partition(whole, eqx.is_array)
            np.testing.assert_allclose(forward(EXPORTER.bind_params(static, arrays)), forward(whole), atol=1e-6)
        graph, state = nnx.split(Net())
        np.testing.assert_allclose(forward(EXPORTER.bind_params(graph, state)), forward(Net()), atol=1e-6)

    @pytest.mark.parametrize(
        ("model", "text"),
        [
            (Net(), r"Net, which holds its own parameters. Put them in with nnx.update\(model, state\)"),
            (
                Cell(),
                r"Cell, which holds its own parameters. Leave params= out; or give the two parts of eqx.partition",
            ),
            (state_of(Dense()), "Dense, which holds its own parameters"),
            (Dense().bind(Dense().init(KEY, X)), "is bound to its own; give the module before its bind"),
            (
                makes_a_function,
                r"makes_a_function\(x\) takes 1 argument\(s\); a function of the parameters and then the",
            ),
            (jax.jit(makes_a_function), r"makes_a_function\(x\) takes 1 argument"),
        ],
    )
    def test_superfluous_parameters(self, model: Any, text: str) -> None:
        with pytest.raises(OptionError, match=text):
            EXPORTER.bind_params(model, {"w": WEIGHT})

    def test_parameters_that_are_none(self) -> None:
        with pytest.raises(
            OptionError, match="params= for the flax module Dense is a list; the dict that its init gave was"
        ):
            EXPORTER.bind_params(Dense(), [1])

    def test_params_through_the_verb(self) -> None:
        result = fo.generate(apply_dict, X, params={"w": WEIGHT}, runner="native")
        np.testing.assert_allclose(result.probs, jax.nn.softmax(X @ NUMPY_WEIGHT), atol=1e-6)
        result = fo.generate(Dense(), X, params=Dense().init(KEY, X), runner="native")
        assert result.meta["model"]["framework"] == "jax"
        with pytest.raises(ModelError, match="params="):
            fo.generate(Dense(), X)
