"""Which objects are JAX models, the inputs that they take, their parameters, and what tells one from another."""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.errors import ModelError, OptionError
from fo_onnx.options import ModelOptions, OutputOptions
from fo_onnx.spec import InputSignature

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from fo_onnx_jax.export import JaxExporter  # noqa: E402
from fo_onnx_jax.models import Bound  # noqa: E402
from jax import lax  # noqa: E402
from jax_libraries import equinox as eqx  # noqa: E402
from jax_libraries import haiku as hk  # noqa: E402
from jax_libraries import linen, nnx, train_state  # noqa: E402

EXPORTER = JaxExporter()
KEY = jax.random.key(0)
X = np.random.default_rng(0).standard_normal((5, 3), dtype=np.float32)
NUMPY_WEIGHT = np.random.default_rng(1).standard_normal((3, 2)).astype(np.float32)
WEIGHT = jnp.asarray(NUMPY_WEIGHT)


def forward(model: Any, x: np.ndarray = X) -> np.ndarray:
    raw = EXPORTER.native(model, {"0": x}, "cpu", ModelOptions(), OutputOptions())
    try:
        return raw.forward({"0": x})
    finally:
        raw.close()


class Dense(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        return linen.Dense(2)(x)


class Trained(linen.Module):
    """Needs to be told that it is not trained."""

    @linen.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = linen.BatchNorm(use_running_average=not train)(linen.Dense(8)(x))
        return linen.Dense(2)(linen.Dropout(0.5)(x, deterministic=not train))


class TrainsByDefault(Trained):
    @linen.compact
    def __call__(self, x: Any, train: bool = True) -> Any:
        return super().__call__(x, train)


class Net(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.layers = nnx.Sequential(nnx.Linear(3, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs), jnp.tanh)
        self.drop, self.out = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.out(self.drop(self.layers(x)))


class Cell(eqx.Module):
    """A single-sample classifier, as equinox's are."""

    linear: eqx.nn.Linear
    drop: eqx.nn.Dropout
    activation: Callable[[Any], Any] = eqx.field(static=True)

    def __init__(self, activation: Callable[[Any], Any] = jnp.tanh) -> None:
        self.linear, self.drop, self.activation = eqx.nn.Linear(3, 2, key=KEY), eqx.nn.Dropout(0.5), activation

    def __call__(self, x: Any, *, key: Any = None) -> Any:
        return self.drop(self.activation(self.linear(x)), key=key)


def transformed(x: Any) -> Any:
    return hk.Linear(2)(jnp.tanh(hk.Linear(8)(x)))


def with_state(x: Any, is_training: bool) -> Any:
    return hk.Linear(2)(hk.BatchNorm(True, True, 0.9)(hk.Linear(8)(x), is_training))


@dataclasses.dataclass
class Parameters:
    layers: list[Any]


class Holder:
    def __init__(self, weight: Any) -> None:
        self.weight = weight

    def __call__(self, x: Any) -> Any:
        return self.score(x)

    def score(self, x: Any) -> Any:
        return jnp.tanh(x) @ self.weight


class NumpyHolder(Holder):
    def score(self, x: Any) -> Any:
        return np.tanh(x) @ self.weight


def closes_over(held: Any, use: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    return lambda x: use(held, x)


def apply_dict(params: Any, x: Any) -> Any:
    return x @ params["w"]


def makes_a_function(x: Any) -> Any:
    def inner(y: Any) -> Any:
        return jnp.tanh(y)

    return inner(x)


def with_own_derivative() -> Any:
    @jax.custom_jvp
    def score(x: Any) -> Any:
        return jnp.tanh(x) @ NUMPY_WEIGHT

    score.defjvp(lambda primals, tangents: (score(*primals), score(*tangents)))
    return score


MODELS: dict[str, Callable[[], Any]] = {
    "jit": lambda: jax.jit(lambda x: x @ NUMPY_WEIGHT),
    "vmap": lambda: jax.vmap(lambda x: x @ NUMPY_WEIGHT),
    "checkpoint": lambda: jax.checkpoint(lambda x: x @ NUMPY_WEIGHT),
    "custom_jvp": lambda: with_own_derivative(),
    "partial": lambda: functools.partial(apply_dict, {"w": WEIGHT}),
    "names jnp": lambda: lambda x: jnp.tanh(x @ NUMPY_WEIGHT),
    "names lax": lambda: lambda x: lax.tanh(x @ NUMPY_WEIGHT),
    "names jax": lambda: lambda x: jax.nn.relu(x @ NUMPY_WEIGHT),
    "names it within": lambda: makes_a_function,
    "holds an array": lambda: lambda x: x @ WEIGHT,
    "holds a dict": lambda: closes_over({"a": [{"w": WEIGHT}]}, lambda p, x: x @ p["a"][0]["w"]),
    "holds a dataclass": lambda: closes_over(Parameters([WEIGHT]), lambda p, x: x @ p.layers[0]),
    "holds a module": lambda: closes_over(Net(), lambda m, x: m(x)),
    "object": lambda: Holder(NUMPY_WEIGHT),
    "method": lambda: Holder(NUMPY_WEIGHT).score,
    "nnx": Net,
    "nnx.jit": lambda: nnx.jit(Net()),
    "vmapped equinox": lambda: jax.vmap(Cell()),
    "filter_jit": lambda: eqx.filter_jit(eqx.filter_vmap(Cell())),
    "filter_vmap": lambda: eqx.filter_vmap(Cell()),
    "bound linen": lambda: Dense().bind(Dense().init(KEY, X)),
    "train state": lambda: state_of(Dense()),
}


def state_of(module: Any, **fields: Any) -> Any:
    import optax

    variables = module.init(KEY, X)
    return train_state.TrainState.create(apply_fn=module.apply, params=variables["params"], tx=optax.sgd(0.1), **fields)


@pytest.mark.parametrize("name", MODELS)
class TestEveryKind:
    def test_it_is_accepted_and_runs(self, name: str) -> None:
        model = MODELS[name]()
        assert EXPORTER.accepts(model)
        whole = forward(model)
        assert whole.shape[0] == 5
        np.testing.assert_allclose(whole[:2], forward(model, X[:2]), atol=1e-6)

    def test_its_fingerprint_stays(self, name: str) -> None:
        model = MODELS[name]()
        known = EXPORTER.fingerprint(model)
        forward(model)
        assert EXPORTER.fingerprint(model) == known, "running it does not change it"
        assert EXPORTER.fingerprint(MODELS[name]()) == known, "the same model made again"


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
        "from fo_onnx_jax.export import JaxExporter\n"
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


class TestBound:
    def test_a_function(self) -> None:
        model = EXPORTER.bound(apply_dict, {"w": WEIGHT})
        assert EXPORTER.signature(model) == InputSignature(("x",))
        np.testing.assert_allclose(forward(model), X @ NUMPY_WEIGHT, atol=1e-6)

    @pytest.mark.parametrize("module", [Trained(), TrainsByDefault()])
    def test_a_linen_module_is_told_that_it_is_not_trained(self, module: Any) -> None:
        variables = module.init({"params": KEY, "dropout": KEY}, X, train=True)
        model = EXPORTER.bound(module, variables)
        assert EXPORTER.signature(model) == InputSignature(("x",))
        expected = module.apply(variables, X, train=False)
        np.testing.assert_allclose(forward(model), expected, atol=1e-6)

    def test_a_linen_module_with_bare_parameters(self) -> None:
        module = Dense()
        variables = module.init(KEY, X)
        for params in (variables, variables["params"], state_of(module)):
            np.testing.assert_allclose(forward(EXPORTER.bound(module, params)), module.apply(variables, X), atol=1e-6)

    def test_a_train_state_with_batch_statistics(self) -> None:
        class State(train_state.TrainState):  # type: ignore[misc]
            batch_stats: Any

        import optax

        module = Trained()
        variables = module.init(KEY, X, train=False)
        variables["batch_stats"] = jax.tree.map(lambda a: a + 0.7, variables["batch_stats"])
        state = State.create(apply_fn=module.apply, tx=optax.sgd(0.1), **variables)
        expected = module.apply(variables, X, train=False)
        for model in (state, EXPORTER.bound(module, state)):
            np.testing.assert_allclose(forward(model), expected, atol=1e-6)

    @pytest.mark.parametrize("without_rng", [False, True])
    def test_haiku(self, without_rng: bool) -> None:
        pair = hk.transform(transformed)
        params = pair.init(KEY, X)
        model = EXPORTER.bound(hk.without_apply_rng(pair) if without_rng else pair, params)
        assert EXPORTER.signature(model) == InputSignature(("x",))
        np.testing.assert_allclose(forward(model), pair.apply(params, None, X), atol=1e-6)

    @pytest.mark.parametrize("without_rng", [False, True])
    def test_haiku_with_state(self, without_rng: bool) -> None:
        pair = hk.transform_with_state(with_state)
        params, state = pair.init(KEY, X, True)
        model = EXPORTER.bound(hk.without_apply_rng(pair) if without_rng else pair, (params, state))
        assert EXPORTER.signature(model) == InputSignature(("x",))
        np.testing.assert_allclose(forward(model), pair.apply(params, state, None, X, False)[0], atol=1e-6)
        with pytest.raises(OptionError, match=r"made by transform_with_state, so that \(params, state\) was expected"):
            EXPORTER.bound(pair, params)

    def test_both_parts_of_a_module(self) -> None:
        whole = eqx.filter_vmap(Cell())
        arrays, static = eqx.partition(whole, eqx.is_array)
        np.testing.assert_allclose(forward(EXPORTER.bound(static, arrays)), forward(whole), atol=1e-6)
        graph, state = nnx.split(Net())
        np.testing.assert_allclose(forward(EXPORTER.bound(graph, state)), forward(Net()), atol=1e-6)

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
            EXPORTER.bound(model, {"w": WEIGHT})

    def test_parameters_that_are_none(self) -> None:
        with pytest.raises(
            OptionError, match="params= for the flax module Dense is a list; the dict that its init gave was"
        ):
            EXPORTER.bound(Dense(), [1])

    def test_params_through_the_verb(self) -> None:
        found = fo.generate(apply_dict, X, params={"w": WEIGHT}, engine="native")
        np.testing.assert_allclose(found.probs, jax.nn.softmax(X @ NUMPY_WEIGHT), atol=1e-6)
        found = fo.generate(Dense(), X, params=Dense().init(KEY, X), engine="native")
        assert found.meta["model"]["framework"] == "jax"
        with pytest.raises(ModelError, match="params="):
            fo.generate(Dense(), X)


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
    found = fo.generate(model, data, engine="onnx", **options)
    expected = fo.generate(model, data, engine="native", **options)
    assert found.meta["runner"]["kind"] == "onnx"
    assert expected.meta["runner"]["kind"] == "native"
    parity = found.meta["parity"]
    assert parity["max_tv"] < 1e-5
    assert parity["row_spread"] > 0.05, "rows this close together agree with anything"
    assert (parity["original_gap"] is not None) == (name == "bfloat16")
    np.testing.assert_allclose(found.probs, expected.probs, atol=1e-5)


class TestNativeOnly:
    def test_a_loop_that_onnx_runtime_runs_slowly(self) -> None:
        def loops(x: Any) -> Any:
            state, _ = lax.scan(lambda h, _: (jnp.sin(h @ (WEIGHT @ WEIGHT.T)), None), x, length=40)
            return {"logits": state, "aside": x}

        reason = EXPORTER.native_only(loops, {"0": X})
        assert reason is not None
        assert "lax.scan over 40 steps" in reason
        found = fo.generate(loops, ROWS)
        assert (found.meta["runner"]["kind"], found.meta["runner"]["reason"]) == ("native", reason)

    def test_nothing_speaks_against_onnx(self) -> None:
        def branches(x: Any) -> Any:
            return jnp.tanh(x) if x.sum() > 0 else x

        for model in (Net(), jax.vmap(Cell()), lambda x: (x @ WEIGHT, x), branches):
            assert EXPORTER.native_only(model, {"0": X}) is None


def call(model: Any, x: Any) -> Any:
    return model(x)


class TestFingerprint:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (lambda x: jnp.tanh(x), lambda x: jnp.sinh(x)),
            (lambda x: jnp.tanh(x) * 2, lambda x: jnp.tanh(x) * 3),
            (closes_over(WEIGHT, jnp.dot), closes_over(WEIGHT.at[0, 0].add(1e-6), jnp.dot)),
            (closes_over({"a": [NUMPY_WEIGHT]}, call), closes_over({"b": [NUMPY_WEIGHT]}, call)),
            (Holder(WEIGHT), Holder(WEIGHT.T)),
            (Holder(WEIGHT), NumpyHolder(WEIGHT)),
            (Cell(), Cell(jax.nn.relu)),
            (jax.vmap(Cell()), jax.vmap(Cell(jax.nn.relu))),
            (eqx.filter_jit(Cell()), eqx.filter_jit(Cell(jax.nn.relu))),
            (closes_over(jax.random.key(0), call), closes_over(jax.random.key(1), call)),
            (nnx.Linear(3, 2, rngs=nnx.Rngs(0)), nnx.Linear(3, 2, rngs=nnx.Rngs(1))),
            (nnx.Dropout(0.5), nnx.Dropout(0.4)),
            (Bound(Dense(), {"w": WEIGHT}, call, call), Bound(Dense(), {"w": WEIGHT + 1}, call, call)),
            (linen.Dense(2), linen.Dense(3)),
            (
                functools.partial(apply_dict, {"w": WEIGHT}),
                functools.partial(apply_dict, {"w": WEIGHT.astype("bfloat16")}),
            ),
            (hk.transform(transformed), hk.transform(with_state)),
        ],
    )
    def test_what_differs(self, one: Any, other: Any) -> None:
        assert EXPORTER.fingerprint(one) != EXPORTER.fingerprint(other)

    def test_a_method_of_a_class(self) -> None:
        def of(text: str) -> Any:
            space = {"linen": linen, "jnp": jnp, "__name__": "user"}
            code = (
                "class M(linen.Module):\n    @linen.compact\n    def __call__(self, x):\n        return self.end(linen.Dense(2)(x))\n"
                f"    def end(self, x):\n        return {text}\n"
            )
            exec(code, space)
            return space["M"]()

        assert EXPORTER.fingerprint(of("x * 2")) == EXPORTER.fingerprint(of("x * 2"))
        assert EXPORTER.fingerprint(of("x * 2")) != EXPORTER.fingerprint(of("x * 3"))

    def test_a_function_that_a_function_calls(self) -> None:
        def of(text: str) -> Any:
            space = {"jnp": jnp, "__name__": "user"}
            exec(
                f"def inner(x):\n    return {text}\ndef outer(x):\n    return [inner(x) for _ in range(1)][0]\n", space
            )
            return space["outer"]

        assert EXPORTER.fingerprint(of("jnp.tanh(x)")) == EXPORTER.fingerprint(of("jnp.tanh(x)"))
        assert EXPORTER.fingerprint(of("jnp.tanh(x)")) != EXPORTER.fingerprint(of("jnp.sinh(x)"))

    def test_what_holds_itself(self) -> None:
        held: dict[str, Any] = {"w": WEIGHT}
        held["self"] = held
        assert EXPORTER.fingerprint(closes_over(held, call)) == EXPORTER.fingerprint(closes_over(held, call))

    def test_it_is_the_same_in_other_processes(self) -> None:
        names = list(MODELS)
        program = (
            f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1] / 'support')]!r}\n"
            "import test_jax_models as t\n"
            f"print([t.EXPORTER.fingerprint(t.MODELS[n]()) for n in {names!r}])\n"
        )
        run = subprocess.run(
            [sys.executable, "-c", program], check=True, timeout=120, capture_output=True, text=True,
            env={**os.environ, "PYTHONHASHSEED": "1"},
        )  # fmt: skip
        assert run.stdout.strip() == str([EXPORTER.fingerprint(MODELS[n]()) for n in names])


def test_versions() -> None:
    found = EXPORTER.versions()
    assert found["jax"] == jax.__version__
    assert {"jaxlib", "flax", "equinox", "dm-haiku"} <= set(found)
    program = (
        "import sys; from fo_onnx_jax.export import JaxExporter; v = JaxExporter().versions()\n"
        "assert set(v) == {'jax', 'jaxlib', 'tensorflow', 'tf2onnx'}, v"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_there_are_no_files() -> None:
    assert not EXPORTER.opens(Path("model.msgpack"))
    with pytest.raises(ModelError, match="there are no files of JAX models. Give the function or module, with params="):
        EXPORTER.load(Path("model.msgpack"), trust=True)
    with pytest.raises(ModelError, match="Read them and give them with params="):
        EXPORTER.load_weights(Net(), Path("model.safetensors"))
