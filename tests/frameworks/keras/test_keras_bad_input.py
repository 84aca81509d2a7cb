"""What goes wrong in the hands of somebody with a Keras model: each error says what was found, and what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo

keras = pytest.importorskip("keras")
from keras import layers  # noqa: E402

RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((20, 5), dtype=np.float32)
IMAGES = RNG.standard_normal((6, 8, 8, 3), dtype=np.float32)


@pytest.fixture(scope="module")
def dense() -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential([layers.Input((5,)), layers.Dense(3, kernel_initializer="he_normal")])


@pytest.fixture(scope="module")
def conv() -> Any:
    return keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3)])


Data = Callable[[], Any]


@pytest.mark.parametrize(
    ("data", "messages"),
    [
        (lambda: ROWS[:, :4], ["the model does not take the data: running Sequential in TensorFlow on input: float32 (20, 4)",
                               "expected axis -1 of input shape to have value 5", "Check their axes"]),
        (lambda: ROWS[:, :, None, None], ["does not take the data: running Sequential in TensorFlow on input: float32 (20, 5, 1, 1)"]),
        (lambda: np.array([["a"] * 5] * 4), ["has the dtype <U1; numbers were expected"]),
        (lambda: ROWS.astype(np.complex64), ["the rows are complex64, and Sequential takes float32", "transform=abs"]),
        (lambda: None, ["rows cannot be read from a builtins.NoneType"]),
        (lambda: [[1.0] * 5, [3.0] * 4], ["ragged"]),
    ],
    ids=["width", "rank", "text", "complex", "nothing", "ragged"],
)  # fmt: skip
def test_rows_that_do_not_fit(dense: Any, data: Data, messages: list[str]) -> None:
    with pytest.raises(fo.DataError) as caught:
        fo.generate(dense, data())
    for message in messages:
        assert message in str(caught.value)


def test_integers_for_a_function_over_floats() -> None:
    import tensorflow as tf

    weights = tf.constant(ROWS[:5, :3])
    with pytest.raises(fo.DataError, match=r"np\.asarray\(x, 'float32'\), scaled as the model was trained\.$"):
        fo.generate(tf.function(lambda x: x @ weights), ROWS.astype(np.int64))


def test_channels_first(conv: Any) -> None:
    with pytest.raises(
        fo.DataError, match=r"channels first, NCHW. If the model takes them last, transpose.*transpose\(1, 2, 0\)"
    ):
        fo.generate(conv, IMAGES.transpose(0, 3, 1, 2))
    found = fo.generate(conv, IMAGES, runner="onnx")
    assert found.probs.shape == (6, 3)


def test_rows_that_are_not_finite(dense: Any) -> None:
    rows = ROWS.copy()
    rows[3, 1] = np.nan
    for runner in ("onnx", "native"):
        with pytest.raises(fo.DataError, match=r"row 3 \(id 3\)"):
            fo.generate(dense, rows, runner=runner)
        assert fo.generate(dense, rows, runner=runner, on_error="skip").ids.tolist() == [i for i in range(20) if i != 3]


def test_parameters_beside_the_model(dense: Any) -> None:
    with pytest.raises(fo.OptionError, match=r"params= was given for Sequential.*set_weights of Keras"):
        fo.generate(dense, ROWS, params=dense.get_weights())


def test_an_output_that_is_not_there(dense: Any) -> None:
    with pytest.raises(fo.OutputError, match="Sequential has no output 'q'"):
        fo.generate(dense, ROWS, output_name="q")


def test_several_devices_without_a_strategy(dense: Any) -> None:
    with pytest.raises(fo.DeviceError, match="tf.distribute strategy"):
        fo.generate(dense, ROWS, device=["cpu", "cpu"], runner="native")


@pytest.mark.parametrize(
    ("missing", "program"),
    [
        ("keras", "fo.generate('model.keras', np.zeros((2, 5), 'float32'))"),
        ("tensorflow", "fo.generate('saved', np.zeros((2, 5), 'float32'))"),
    ],
)
def test_without_the_packages(dense: Any, tmp_path: Path, missing: str, program: str) -> None:
    (tmp_path / "model.keras").write_bytes(b"")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "import numpy as np, fo_onnx as fo\n"
        f"try:\n    {program}\nexcept fo.PluginError as err:\n    print(err)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert f"needs {missing}" in found.stdout, found.stderr
    assert "pip install 'fo-onnx[keras]'" in found.stdout


def test_without_tf2onnx_models_run_natively(dense: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.warns(
        fo.FallbackWarning, match=r"converting Sequential to ONNX needs tf2onnx .*pip install 'fo-onnx\[keras\]'"
    ):
        found = fo.generate(dense, ROWS)
    assert found.meta["runner"]["kind"] == "native"


def test_the_patch_of_convolutions_is_undone_and_knows_its_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras.src.backend.tensorflow.nn as module
    import tensorflow as tf
    from fo_onnx_keras.patches import patch_convolutions

    with pytest.raises(KeyError), patch_convolutions():
        assert module.tf is not tf
        assert module.tf.function(jit_compile=True)(len) is len
        assert module.tf.nn is tf.nn
        raise KeyError
    assert module.tf is tf
    monkeypatch.setattr(keras, "__version__", "3.99.0")
    monkeypatch.setattr(module, "conv", tf.nn.convolution)
    with (
        pytest.warns(
            UserWarning, match=r"Keras 3.99.0 differs from the versions.*grouped convolutions may not become ONNX"
        ),
        patch_convolutions(),
    ):
        pass
