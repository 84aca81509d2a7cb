"""What goes wrong with JAX models in a user's hands: each error says what was done, found and expected, and what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.errors import FallbackWarning, FoOnnxError

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from jax_libraries import equinox as eqx  # noqa: E402
from jax_libraries import haiku as hk  # noqa: E402
from jax_libraries import linen, nnx  # noqa: E402

RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((20, 5), dtype=np.float32)
IMAGES = RNG.standard_normal((6, 8, 8, 3), dtype=np.float32)
W = jnp.asarray(RNG.standard_normal((5, 3), dtype=np.float32) * 2)
KERNEL = jnp.asarray(RNG.standard_normal((3, 3, 3, 4), dtype=np.float32))


def linear(x: Any) -> Any:
    return x @ W


def conv(x: Any) -> Any:
    features = jax.lax.conv_general_dilated(x, KERNEL, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return features.mean((1, 2))


def returns(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def model(x: Any) -> Any:
        return function(x @ W)

    return model


class Dense(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        return linen.Dense(3)(x)


class Normed(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        return linen.BatchNorm(use_running_average=True)(linen.Dense(3)(x))


def transformed(x: Any) -> Any:
    return hk.Linear(3)(x)


def bare_parameters() -> Any:
    return Normed().init(jax.random.key(0), ROWS)["params"]


Case = tuple[Callable[[], Any], type[FoOnnxError], list[str]]
gen = fo.generate

CASES: dict[str, Case] = {
    # outputs
    "a scalar": (lambda: gen(returns(lambda z: z.mean()), ROWS), fo.OutputError,
        ["model gives an output of shape (), a scalar", "one row of class scores per sample was expected"]),
    "3-D": (lambda: gen(returns(lambda z: z[:, None].repeat(2, 1)), ROWS), fo.OutputError,
        ["an output of shape (20, 2, 3); (n, classes) was expected", "output_name="]),
    "two outputs": (lambda: gen(returns(lambda z: (z, 2 * z)), ROWS), fo.OutputError,
        ["model has no output called 'logits'; say which one with output_name=", "0 (20, 3), 1 (20, 3)"]),
    "two outputs, named": (lambda: gen(returns(lambda z: {"a": z, "b": z}), ROWS, output_name="q"), fo.OutputError,
        ["model has no output 'q'; its outputs are a (20, 3), b (20, 3)"]),
    "nothing": (lambda: gen(returns(lambda z: None), ROWS), fo.OutputError,
        ["model returns a NoneType, which holds no tensor; class scores (n, classes) were expected"]),
    "text": (lambda: gen(returns(lambda z: ["cat"] * len(z)), ROWS), fo.OutputError, ["model returns a list of str"]),
    "predicted classes": (lambda: gen(returns(lambda z: z.argmax(1)), ROWS), fo.OutputError,
        ["model gives one int32 number per sample, as a predicted class is", "Leave out the argmax"]),
    "fewer rows": (lambda: gen(returns(lambda z: z[1:]), ROWS), fo.OutputError, ["an output of shape (19, 3) for 20 rows"]),
    "NaN weights": (lambda: gen(lambda x: x @ W.at[0, 0].set(jnp.nan) if True else linear(x), ROWS), fo.OutputError,
        ["gives no finite output on the first 20 rows", "Look for NaN in the weights"]),
    # models that are not batched
    "a function of one sample": (lambda: gen(lambda x: W.T @ x, ROWS), fo.DataError,
        ["It is not batched: it takes one sample, and gives (3,) for it. Give jax.vmap(model), which takes a batch"]),
    "an equinox module": (lambda: gen(eqx.nn.MLP(5, 3, 8, 1, key=jax.random.key(0)), ROWS), fo.DataError,
        ["running MLP in JAX on x: float32 (20, 5) failed", "Give jax.vmap(model)"]),
    "an equinox module, exported": (
        lambda: fo.export(eqx.nn.MLP(5, 3, 8, 1, key=jax.random.key(0)), ROWS, "never.onnx"), fo.DataError,
        ["Give jax.vmap(model)"]),
    "a mean over the batch": (lambda: gen(lambda x: jnp.stack([x.mean(), x.max()]), ROWS), fo.OutputError,
        ["an output of shape (2,) for 20 rows; one row per sample was expected. It is not batched"]),
    # parameters
    "linen without parameters": (lambda: gen(Dense(), ROWS), fo.ModelError,
        ["the flax module Dense holds no parameters: give what its init gave, or what you trained, with params="]),
    "haiku without parameters": (lambda: gen(hk.transform(transformed), ROWS), fo.ModelError,
        ["the haiku function transformed holds no parameters: give its parameters", "with params="]),
    "nnx with parameters": (lambda: gen(nnx.Linear(5, 3, rngs=nnx.Rngs(0)), ROWS, params={"w": W}), fo.OptionError,
        ["params= was given for Linear, which holds its own parameters", "nnx.update(model, state)"]),
    "a function that has no room for them": (lambda: gen(linear, ROWS, params={"w": W}), fo.OptionError,
        ["params= was given, and linear(x) takes 1 argument(s)", "Leave params= out if it holds its own"]),
    "a collection is missing": (lambda: gen(Normed(), ROWS, params=bare_parameters()), fo.DataError,
        ["running Normed in JAX on x: float32 (20, 5) failed: ScopeCollectionNotFound", 'collection "batch_stats"']),
    "parameters of another module": (lambda: gen(Dense(), ROWS, params={"params": {"Dense_0": {}}}), fo.DataError,
        ["running Dense in JAX on x: float32 (20, 5) failed: ScopeParamNotFoundError"]),
    # data
    "another width": (lambda: gen(linear, ROWS[:, :4]), fo.DataError,
        ["the model does not take the data: running linear in JAX on x: float32 (20, 4) failed", "(4,) and (5,)",
         "Rows of the data are 0: float32 (4,)", "Check their axes"]),
    "a missing axis": (lambda: gen(conv, IMAGES[:, :, :, 0]), fo.DataError, ["running conv in JAX", "a missing axis"]),
    "NCHW": (lambda: gen(conv, IMAGES.transpose(0, 3, 1, 2)), fo.DataError,
        ["running conv in JAX on x: float32 (6, 3, 8, 8) failed", "channels first, NCHW",
         "transform=lambda x: x.transpose(1, 2, 0)"]),
    "pixels": (lambda: gen(conv, (IMAGES * 10).astype(np.uint8)), fo.DataError,
        ["running conv in JAX on x: uint8 (6, 8, 8, 3) failed", "Rows of the data are 0: uint8",
         "transform=lambda x: np.asarray(x, 'float32'), scaled as the model was trained"]),
    "rows of text": (lambda: gen(linear, np.array([["a"] * 5] * 3)), fo.DataError, ["has the dtype <U1; numbers were expected"]),
    "no data": (lambda: gen(linear, None), fo.DataError, ["rows cannot be read from a builtins.NoneType"]),
    "an input too many": (lambda: gen(linear, {"a": ROWS, "b": ROWS}), fo.DataError, ["running linear in JAX on"]),
    "a row of NaN": (lambda: gen(linear, np.concatenate([ROWS, np.full((1, 5), np.nan, np.float32)]), runner="native"),
        fo.DataError, ["row 20 (id 20)", "NaN"]),
    # options
    "a device that is not there": (lambda: gen(linear, ROWS, device="tpu"), fo.DeviceError,
        ["device='tpu:0' was asked for, but jax", "has only cpu"]),
    "a file of weights": (lambda: fo.generate("model.msgpack", ROWS), fo.ModelError, ["known suffixes are .onnx"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore::fo_onnx.errors.FallbackWarning")
def test_what_goes_wrong_is_said(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    action, kind, texts = CASES[name]

    with pytest.raises(FoOnnxError) as caught:
        action()

    message = str(caught.value)
    assert isinstance(caught.value, kind), (type(caught.value), message)
    for text in texts:
        assert text in message, message
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_rows_of_nan_are_recorded(tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[3, 0] = np.nan
    result = fo.generate(linear, rows, runner="native", on_error="skip")
    assert result.ids.tolist() == [i for i in range(20) if i != 3]


def test_one_of_two_outputs() -> None:
    def pair(x: Any) -> Any:
        return {"scores": x @ W, "aside": jnp.tanh(x)}

    result = fo.generate(pair, ROWS, output_name="scores", runner="native")
    np.testing.assert_allclose(result.probs, jax.nn.softmax(ROWS @ np.asarray(W)), atol=1e-6)


def test_a_model_that_looks_at_values_runs_natively_with_the_reason() -> None:
    def branches(x: Any) -> Any:
        return jnp.asarray(x) @ W * (2 if x.sum() > -1e9 else 1)

    with pytest.warns(FallbackWarning, match="branches runs natively, not in ONNX: .* cannot convert branches"):
        result = fo.generate(branches, ROWS)
    assert result.meta["runner"]["kind"] == "native"
    assert "Tracer" in result.meta["runner"]["reason"]
    np.testing.assert_allclose(result.probs, jax.nn.softmax(2 * ROWS @ np.asarray(W)), atol=1e-5)


WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ImportError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
import numpy as np, fo_onnx as fo
x = np.eye(5, dtype=np.float32)
"""


def test_without_jax() -> None:
    program = WITHOUT.format(missing=("jax",)) + (
        "try:\n    fo.generate(lambda x: x @ np.eye(5), x, framework='jax')\n"
        "except fo.PluginError as err:\n    assert \"pip install 'fo-onnx[jax]'\" in str(err), err\n"
        "else:\n    raise AssertionError\n"
        "assert len(fo.generate(lambda x: x @ np.eye(5), x)) == 5\n"
    )
    run = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_without_what_converts() -> None:
    program = WITHOUT.format(missing=("tensorflow", "tf2onnx", "jax2onnx")) + (
        "import warnings, free_exports, jax.numpy as jnp\n"
        "with warnings.catch_warnings(record=True) as said:\n"
        "    result = fo.generate(lambda x: x @ jnp.eye(5), x)\n"
        "assert result.meta['runner']['kind'] == 'native'\n"
        "assert 'pip install' in result.meta['runner']['reason'] and len(said) == 1, result.meta['runner']\n"
        "try:\n    fo.generate(lambda x: x @ jnp.eye(5), x, runner='onnx')\n"
        'except fo.FoOnnxError as err:\n    assert "pip install \'fo-onnx[jax" in str(err), err\n'
        "else:\n    raise AssertionError\n"
    )
    run = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
