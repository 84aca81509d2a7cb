"""No false alarm: the nets that ship with Keras, at float32, mix no rows, however sharp their head is."""

from __future__ import annotations

import numpy as np
import pytest

import fo_onnx as fo

keras = pytest.importorskip("keras")
SIZES = {
    "MobileNet": 64, "MobileNetV2": 64, "MobileNetV3Small": 64, "MobileNetV3Large": 64, "EfficientNetB0": 64, "EfficientNetB1": 64,
    "EfficientNetV2B0": 64, "EfficientNetV2B1": 64, "EfficientNetV2B2": 64, "NASNetMobile": 64, "DenseNet121": 64, "DenseNet169": 64,
    "ResNet50": 64, "ResNet50V2": 64, "ResNet101": 64, "InceptionV3": 75, "Xception": 71, "InceptionResNetV2": 75, "VGG16": 64,
    "ConvNeXtTiny": 64,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_rows_of_their_own(name):
    keras.utils.set_random_seed(0)
    build = getattr(keras.applications, name)
    net = build(weights=None, input_shape=(SIZES[name], SIZES[name], 3), classes=10, classifier_activation=None)
    x = np.random.default_rng(0).uniform(0, 255, (48, SIZES[name], SIZES[name], 3)).astype(np.float32)
    logits = net.predict(x[:16], verbose=0)
    # Freshly made nets are near uniform; a head that makes them confident makes their noise larger as well.
    spread = float(np.std(logits - logits.mean(axis=0)))
    dists = fo.generate(net, x, output="logits", temperature=max(spread / 3, 1e-6), runner="native", progress=False)
    assert dists.meta["runner"]["reason"] is None
