"""Indices that Keras and TensorFlow refuse, and that ONNX counts from the end."""

from __future__ import annotations

import numpy as np
import pytest

import fo_onnx as fo

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
IDS = np.random.default_rng(0).integers(0, 20, (400, 6)).astype("int32")


@pytest.fixture(scope="module")
def embedding():
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Input((6,), dtype="int32"),
        keras.layers.Embedding(20, 8),
        keras.layers.GlobalAveragePooling1D(),
    ]
    return keras.Sequential([*layers, keras.layers.Dense(4)])


@pytest.fixture(scope="module")
def gathering():
    table = tf.constant(np.random.default_rng(0).standard_normal((20, 4)), tf.float32)

    @tf.function(input_signature=[tf.TensorSpec((None, 6), tf.int32)])
    def function(ids):
        return tf.reduce_sum(tf.gather(table, ids), 1)

    return function


@pytest.mark.parametrize("model", ["embedding", "gathering"])
@pytest.mark.parametrize("index", [20, -21, -1])
def test_an_index_outside_of_the_table(model, index, request):
    """The rows are those of a native run, and no other row is there."""
    net, ids = request.getfixturevalue(model), IDS.copy()
    ids[300, 2] = index
    native = fo.generate(net, ids, on_error="skip", output="logits", runner="native")
    dists = fo.generate(net, ids, on_error="skip", output="logits")
    assert dists.ids.tolist() == native.ids.tolist()
    np.testing.assert_allclose(dists.probs, native.probs, atol=1e-6)
    if len(native) < 400:
        with pytest.raises(fo.DataError, match=r"row 300 \(id 300\)"):
            fo.generate(net, ids, output="logits")
