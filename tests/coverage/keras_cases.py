"""Keras models of every kind, as test cases: each gives class scores (n, k) whose rows lie apart.

Freshly made nets give nearly the same row for every sample, so that any output would pass a comparison: batch norms are
warmed up, and the last layer is scaled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from fo_onnx.conversion.parity import row_spread
from fo_onnx.distributions.probabilities import softmax

LOGIT_SPREAD = 2.0
ROW_SPREAD = 0.08
Rows = Callable[[int], Any]
"""Makes `n` rows as fo-onnx takes them: an array, a tuple or a dict of arrays. Equal for equal `n`."""
Made = tuple[Any, Rows]


@dataclass(frozen=True)
class Case:
    """A model and rows for it.

    Attributes:
        name: What it is.
        make: Gives the model, with the same weights every time, and its rows.
        slow: Whether its conversion takes long.
        onnx: Whether it must run in ONNX.
    """

    name: str
    make: Callable[[], Made]
    slow: bool = False
    onnx: bool = True


CASES: dict[str, Case] = {}


def case(*, slow: bool = False, onnx: bool = True) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
    def register(make: Callable[[], Made]) -> Callable[[], Made]:
        def seeded() -> Made:
            keras.utils.set_random_seed(0)
            return make()

        CASES[make.__name__] = Case(make.__name__, seeded, slow, onnx)
        return make

    return register


def normal(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def integers(below: int, *shape: int, dtype: str = "int32") -> np.ndarray:
    return np.random.default_rng(1).integers(0, below, shape).astype(dtype)


def rows_of(*shape: int) -> Rows:
    return lambda n: normal(n, *shape)


def as_array(tensor: Any) -> np.ndarray:
    """A tensor of any backend. Keras' own conversion warns with numpy 2 on the TensorFlow backend (Keras 3.15)."""
    return np.asarray(keras.ops.stop_gradient(tensor))


def as_keras(rows: Any) -> Any:
    """Rows in the form in which Keras takes them."""
    return list(rows) if isinstance(rows, tuple) else rows


def scaled(model: Any, rows: Rows, last: Any = None) -> Any:
    """Scales the last dense layer, so that the logits of each class have a standard deviation of `LOGIT_SPREAD` around 0."""
    logits = _logits(model, rows)
    return _rescaled(model, logits, LOGIT_SPREAD / logits.std(axis=0), last)


def barely_spread(model: Any, rows: Rows) -> Any:
    """Scales the last dense layer, so that the median distance of two rows is `ROW_SPREAD`.

    What the rows of a deep net that was never trained have in common is far larger than what they differ by; the more this is
    scaled up, the more are errors of rounding.
    """
    logits = _logits(model, rows)
    centred = logits - logits.mean(axis=0)
    factor = 0.01 / centred.std()
    while row_spread(softmax(centred * factor)) < ROW_SPREAD:
        factor *= 1.1
    return _rescaled(model, logits, np.full(logits.shape[1], factor), None)


def _logits(model: Any, rows: Rows) -> np.ndarray:
    found = model(as_keras(rows(64)), training=False)
    return as_array(next(iter(found.values())) if isinstance(found, dict) else found).astype(np.float64)


def _rescaled(model: Any, logits: np.ndarray, factor: np.ndarray, last: Any) -> Any:
    last = last or model.layers[-1]
    kernel, bias = last.get_weights()
    last.set_weights([(kernel * factor).astype(np.float32), ((bias - logits.mean(axis=0)) * factor).astype(np.float32)])
    return model


def warmed(model: Any, rows: Rows) -> Any:
    """Fills the running statistics of batch norms with those of real rows."""
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(rows(32), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model


def sequential(shape: tuple[int | None, ...], *body: Any, dtype: str = "float32", classes: int = 3) -> Any:
    return keras.Sequential([layers.Input(shape, dtype=dtype), *body, layers.Dense(classes)])


def two_inputs() -> tuple[Any, Any]:
    return layers.Input((8,), name="a"), layers.Input((4,), name="bb")


def photographs(build: Any, *, pixels: bool = False) -> Made:
    """A net of keras.applications over images, of which some take pixels from 0 to 255 and scale them themselves."""

    def rows(n: int) -> np.ndarray:
        # Patches of colour: to a net that averages over the whole image, white noise looks always the same.
        found = np.kron(normal(n, 4, 4, 3), np.ones((1, 16, 16, 1), np.float32)) + normal(n, 64, 64, 3, seed=2) / 4
        return np.clip(found * 60 + 128, 0, 255) if pixels else found

    model = build(weights=None, input_shape=(64, 64, 3), classes=10, classifier_activation=None)
    for layer in model.layers:
        if hasattr(layer, "gamma") and type(layer).__name__ == "LayerScale":
            # ConvNeXt's blocks add a millionth of what they calculate before they are trained.
            layer.gamma.assign(np.full(layer.gamma.shape, 0.1, np.float32))
    return barely_spread(warmed(model, rows), rows), rows


@case(slow=True)
def mobilenetv2() -> Made:
    return photographs(keras.applications.MobileNetV2)


@case(slow=True)
def efficientnetb0() -> Made:
    return photographs(keras.applications.EfficientNetB0, pixels=True)


@case(slow=True)
def convnexttiny() -> Made:
    return photographs(keras.applications.ConvNeXtTiny, pixels=True)


@case(slow=True)
def resnet50() -> Made:
    return photographs(keras.applications.ResNet50)


@case(slow=True)
def densenet121() -> Made:
    return photographs(keras.applications.DenseNet121)


@case()
def sequential_cnn() -> Made:
    rows = rows_of(8, 8, 3)
    model = keras.Sequential(
        [
            layers.Input((8, 8, 3)), layers.Conv2D(8, 3, activation="relu"), layers.BatchNormalization(),
            layers.MaxPooling2D(), layers.Flatten(), layers.Dropout(0.2), layers.Dense(10), layers.Softmax(),
        ]
    )  # fmt: skip
    return _softmaxed(warmed(model, rows), rows), rows


def _softmaxed(model: Any, rows: Rows) -> Any:
    scaled(keras.Sequential(model.layers[:-1]), rows)
    return model


@case()
def multi_in() -> Made:
    a, b = two_inputs()
    joined = layers.Concatenate()([a, b])
    model = keras.Model([a, b], layers.Dense(3, name="classes")(joined))
    rows: Rows = lambda n: (normal(n, 8), normal(n, 4, seed=2))  # noqa: E731
    return scaled(model, rows), rows


@case()
def dict_in() -> Made:
    a, b = two_inputs()
    model = keras.Model({"a": a, "bb": b}, {"p": layers.Dense(3)(layers.Concatenate()([a, b]))})
    rows: Rows = lambda n: {"a": normal(n, 8), "bb": normal(n, 4, seed=2)}  # noqa: E731
    return scaled(model, rows), rows


@case()
def lstm() -> Made:
    rows = rows_of(12, 8)
    return scaled(sequential((12, 8), layers.LSTM(16, return_sequences=True), layers.LSTM(8)), rows), rows


@case()
def gru_bi() -> Made:
    rows = rows_of(12, 8)
    return scaled(sequential((12, 8), layers.Bidirectional(layers.GRU(16))), rows), rows


@case()
def lstm_mask_emb() -> Made:
    def rows(n: int) -> np.ndarray:
        found = integers(50, n, 12) + 1
        found[np.arange(12) >= 3 + np.arange(n)[:, None] % 9] = 0  # padded behind; 0 is masked
        return found

    body = (layers.Embedding(51, 8, mask_zero=True), layers.LSTM(16))
    return scaled(sequential((12,), *body, dtype="int32"), rows), rows


@case()
def lstm_dyn_time() -> Made:
    rows = rows_of(9, 8)
    return scaled(sequential((None, 8), layers.LSTM(16)), rows), rows


@case()
def mha() -> Made:
    rows, i = rows_of(7, 16), layers.Input((7, 16))
    x = layers.LayerNormalization()(layers.MultiHeadAttention(2, 8)(i, i) + i)
    return scaled(keras.Model(i, layers.Dense(3)(layers.GlobalAveragePooling1D()(x))), rows), rows


@case()
def preproc() -> Made:
    rows: Rows = lambda n: normal(n, 8, 8, 3) * 255  # noqa: E731
    normalization = layers.Normalization()
    normalization.adapt(normal(64, 8, 8, 3, seed=3))
    body = (
        layers.Rescaling(1 / 255.0), normalization, layers.RandomFlip(), layers.RandomRotation(0.1),
        layers.Resizing(16, 16), layers.CenterCrop(12, 12), layers.Conv2D(4, 3, activation="relu"), layers.GlobalMaxPooling2D(),
    )  # fmt: skip
    return scaled(sequential((8, 8, 3), *body), rows), rows


@case()
def uint8_in() -> Made:
    rows: Rows = lambda n: integers(255, n, 8, 8, 3, dtype="uint8")  # noqa: E731
    body = (layers.Rescaling(1 / 255.0), layers.Conv2D(4, 3, activation="relu"), layers.GlobalMaxPooling2D())
    return scaled(sequential((8, 8, 3), *body, dtype="uint8"), rows), rows


class Affinity(layers.Layer):
    """Each position as a mixture of all, by their products; in keras.ops."""

    def call(self, x: Any) -> Any:
        weights = keras.ops.softmax(keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1))))
        return keras.ops.matmul(weights, x)


@case()
def custom_keras_ops() -> Made:
    rows = rows_of(5, 8)
    return scaled(sequential((5, 8), Affinity(), layers.Flatten()), rows), rows


@case()
def custom_tf_ops() -> Made:
    import tensorflow as tf

    class Products(layers.Layer):
        """The same by TensorFlow's own operators, with a shape that is read at run time."""

        def call(self, x: Any) -> Any:
            weights = tf.nn.softmax(tf.einsum("bij,bkj->bik", x, x))
            return tf.einsum("bik,bkj->bij", weights, x) * tf.cast(tf.shape(x)[1], tf.float32)

    rows = rows_of(5, 8)
    return scaled(sequential((5, 8), Products(), layers.Flatten()), rows), rows


@case(onnx=False)
def pyfunc() -> Made:
    import tensorflow as tf

    class Sorted(layers.Layer):
        """A numpy function within a model."""

        def call(self, x: Any) -> Any:
            return tf.ensure_shape(tf.numpy_function(lambda a: np.sort(a, axis=1), [x], tf.float32), x.shape)

    rows = rows_of(5)
    return scaled(sequential((5,), Sorted()), rows), rows


class Subclassed(keras.Model):
    """A model whose inputs nothing declares; dropouts that training would switch on."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.dropout = layers.Dense(8, activation="gelu"), layers.Dropout(0.5)
        self.out = layers.Dense(3)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.out(self.dropout(self.hidden(x), training=training))


class OfDicts(keras.Model):
    """A subclassed model that takes a dict and returns one."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = layers.Dense(8, activation="gelu"), layers.Dense(3)

    def call(self, x: Any, training: bool = False) -> Any:
        return {"logits": self.out(self.hidden(x["u"]) + x["v"])}


@case()
def subclassed() -> Made:
    model, rows = Subclassed(), rows_of(6)
    model(rows(2))
    return scaled(model, rows, model.out), rows


@case()
def subclassed_dict() -> Made:
    model = OfDicts()
    rows: Rows = lambda n: {"u": normal(n, 6), "v": normal(n, 8, seed=2)}  # noqa: E731
    model(rows(2))
    return scaled(model, rows, model.out), rows


@case()
def mixed_f16() -> Made:
    rows = rows_of(8, 8, 3)
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        body = (layers.Conv2D(8, 3, activation="relu"), layers.BatchNormalization(), layers.GlobalMaxPooling2D())
        model = keras.Sequential([layers.Input((8, 8, 3)), *body, layers.Dense(10, dtype="float32")])
    finally:
        keras.mixed_precision.set_global_policy("float32")
    return scaled(warmed(model, rows), rows), rows


@case()
def mixed_bf16() -> Made:
    rows = rows_of(8)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = keras.Sequential([layers.Input((8,)), layers.Dense(8, "relu"), layers.Dense(10, dtype="float32")])
    finally:
        keras.mixed_precision.set_global_policy("float32")
    return scaled(model, rows), rows


@case()
def convt_upsample() -> Made:
    rows = rows_of(8, 8, 3)
    body = (
        layers.Conv2DTranspose(8, 3, strides=2, padding="same"), layers.UpSampling2D(interpolation="bilinear"),
        layers.SeparableConv2D(4, 3), layers.Conv2D(8, 3, groups=2), layers.DepthwiseConv2D(3, dilation_rate=2),
        layers.GlobalMaxPooling2D(),
    )  # fmt: skip
    return scaled(sequential((8, 8, 3), *body), rows), rows


@case()
def acts() -> Made:
    names = ("gelu", "silu", "elu", "selu", "softplus", "mish", "hard_silu", "relu6", "tanh", "log_softmax")
    rows: Rows = lambda n: normal(n, 8) * 4  # noqa: E731
    # Side by side, since rows that pass through all of them one after another come out alike.
    i = layers.Input((8,))
    parts = [*(layers.Activation(name) for name in names), layers.PReLU(), layers.LeakyReLU()]
    x = layers.Concatenate()([part(layers.Dense(8)(i)) for part in parts])
    return scaled(keras.Model(i, layers.Dense(8)(x)), rows), rows


@case()
def attention_bert_like() -> Made:
    rows, i = (lambda n: integers(50, n, 7)), layers.Input((7,), dtype="int32")
    x = layers.Embedding(50, 16)(i) + layers.Embedding(7, 16)(keras.ops.arange(7))
    x = layers.MultiHeadAttention(2, 8)(x, x, use_causal_mask=True)
    return scaled(keras.Model(i, layers.Dense(3)(x[:, -1])), rows), rows
