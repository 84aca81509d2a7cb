"""Models of Keras and TensorFlow that take text, in every form of data; and what takes numbers only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.distributions.probabilities import softmax, total_variation
from fo_onnx.errors import DataError, ExportError, ModelError, RunError, StoreExistsError

keras = pytest.importorskip("keras")
import tensorflow as tf  # noqa: E402
from keras import layers  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
TEXTS = np.array(["good film", "bad film", "an awful plot indeed", "nice", "good plot", "meh"] * 4)
NUMBERS = np.random.default_rng(0).standard_normal((24, 4), dtype=np.float32) * 2
WEIGHT = np.random.default_rng(1).standard_normal((4, 3), dtype=np.float32) * 2


def words() -> Any:
    layer = layers.TextVectorization(output_mode="count")
    layer.adapt(TEXTS)
    return layer


def reviews(*more: Any) -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential([layers.Input((1,), dtype="string", name="review"), words(), layers.Dense(3), *more])


class Reviews(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = words(), layers.Dense(3)

    def call(self, texts: Any) -> Any:
        return self.out(self.words(texts))


class Served(tf.Module):
    """A model as it is served: its first signature takes a row's bytes."""

    def __init__(self) -> None:
        self.weight = tf.Variable(WEIGHT)

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="features")])
    def plain(self, features: Any) -> Any:
        return features @ self.weight

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="data")])
    def encoded(self, data: Any) -> Any:
        numbers = tf.strings.to_number(tf.strings.split(data, ",").to_tensor(), tf.float32)
        return self.plain(tf.ensure_shape(numbers, (None, 4)))

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.int32, name="counts")])
    def counted(self, counts: Any) -> Any:
        return self.plain(tf.cast(counts, tf.float32))


def served(folder: Path, *names: str) -> Path:
    module = Served()
    tf.saved_model.save(
        module, str(folder), signatures={n: getattr(module, m) for n, m in (p.split("=") for p in names)}
    )
    return folder


FORMS = {
    "array": TEXTS[:, None],
    "objects": TEXTS.astype(object),
    "bytes": TEXTS.astype(bytes),
    "list": TEXTS.tolist(),
    "by name": {"review": TEXTS[:, None]},
    "tensor": tf.constant(TEXTS),
    "batched pipeline": tf.data.Dataset.from_tensor_slices(TEXTS[:, None]).batch(5),
    "pipeline with labels": tf.data.Dataset.from_tensor_slices((TEXTS[:, None], np.arange(24) % 3)).batch(5),
}


@pytest.mark.parametrize("form", [*FORMS, "frame"])
def test_forms_of_text(form: str) -> None:
    model = reviews()
    data = pytest.importorskip("pandas").DataFrame({"review": TEXTS}) if form == "frame" else FORMS[form]
    expected = softmax(model.predict(tf.constant(TEXTS[:, None]), verbose=0).astype(np.float64))
    result = fo.generate(model, data)
    assert result.meta["runner"]["kind"] == "native"
    assert "is text, and the converter has no operators for text" in result.meta["runner"]["reason"]
    assert total_variation(result.probs, expected).max() < 1e-6
    assert (result.labels is not None) == ("labels" in form)


def test_a_subclassed_model_and_a_second_input_of_numbers() -> None:
    keras.utils.set_random_seed(0)
    model = Reviews()
    expected = softmax(model(tf.constant(TEXTS[:, None])).numpy().astype(np.float64))
    assert total_variation(fo.generate(model, TEXTS[:, None]).probs, expected).max() < 1e-6

    known = layers.StringLookup(vocabulary=np.unique(TEXTS), output_mode="one_hot")
    text, numbers = layers.Input((1,), dtype="string", name="text"), layers.Input((4,), name="numbers")
    both = keras.Model([text, numbers], layers.Dense(3)(layers.Concatenate()([known(text), numbers])))
    expected = softmax(both.predict([tf.constant(TEXTS[:, None]), NUMBERS], verbose=0).astype(np.float64))
    for data in ((TEXTS[:, None], NUMBERS), {"numbers": NUMBERS, "text": TEXTS[:, None]}):
        assert total_variation(fo.generate(both, data).probs, expected).max() < 1e-6


def test_text_is_part_of_what_a_run_is(tmp_path: Path) -> None:
    model, changed = reviews(), TEXTS.copy()
    changed[-1] = "hmm"
    first = fo.generate(model, TEXTS[:, None], out=tmp_path / "rows")
    again = fo.generate(model, TEXTS.tolist(), out=tmp_path / "again")
    np.testing.assert_array_equal(first.probs, again.probs)
    same = fo.generate(model, TEXTS[:, None], out=tmp_path / "rows", resume=True)
    np.testing.assert_array_equal(same.probs, first.probs)
    with pytest.raises(StoreExistsError, match="the rows, their ids or their labels"):
        fo.generate(model, changed[:, None], out=tmp_path / "rows", resume=True)


def test_a_saved_model_whose_default_signature_takes_text(tmp_path: Path) -> None:
    path = served(tmp_path / "served", "serving_default=encoded", "plain=plain", "counted=counted")
    expected = softmax((NUMBERS @ WEIGHT).astype(np.float64))
    message = r"takes text or bytes.*signatures are 'plain', 'counted'.*loaded = tf.saved_model.load\(path\).*\['plain'\] as the model"
    with pytest.raises(RunError, match=message):
        fo.generate(path, NUMBERS)
    # Both ways that the message leaves open.
    loaded = tf.saved_model.load(str(path))
    assert total_variation(fo.generate(loaded.signatures["plain"], NUMBERS).probs, expected).max() < 1e-6
    texts = [",".join(map(repr, row)) for row in NUMBERS.tolist()]
    assert total_variation(fo.generate(path, texts).probs, expected).max() < 1e-6

    several = served(tmp_path / "several", "first=plain", "second=encoded")
    with pytest.raises(
        ModelError, match=r"Choose one: loaded = tf.saved_model.load\(path\), and give loaded.signatures\['first'\]"
    ):
        fo.generate(several, NUMBERS)


def test_columns_of_text(tmp_path: Path) -> None:
    """A lone column of text is the input, whatever its name."""
    pd = pytest.importorskip("pandas")
    texts = ["good film", "bad film"] * 20
    frame = pd.DataFrame({"any name": texts, "label": [0, 1] * 20})
    frame.to_parquet(tmp_path / "texts.parquet")
    for shape in ((), (1,)):
        words = layers.TextVectorization(output_sequence_length=3, vocabulary=["good", "bad", "film"])
        average = (layers.Embedding(6, 4), layers.GlobalAveragePooling1D(), layers.Dense(2, activation="softmax"))
        model = keras.Sequential([keras.Input(shape, dtype="string"), words, *average])
        expected = model.predict(tf.constant(texts), verbose=0)
        forms = (frame, frame["any name"], tmp_path / "texts.parquet", (texts, [0, 1] * 20))
        for data in forms[: 3 if shape else 4]:
            dists = fo.generate(model, data, runner="native", progress=False)
            assert total_variation(expected, dists.probs).max() < 1e-6
            assert (dists.labels is None) == (data is forms[1])


def test_no_file_takes_text(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="input '0' is text, and the converter has no operators for text"):
        fo.export(reviews(), TEXTS[:, None], tmp_path / "model.onnx")


def test_numbers_for_a_model_over_text_and_text_for_one_over_numbers() -> None:
    with pytest.raises(
        RunError, match=r"review: float32 \(24, 1\) failed: this input takes text or bytes. Give it text"
    ):
        fo.generate(reviews(), NUMBERS[:, :1])
    with pytest.raises(DataError, match=r"input '0' has the dtype <U20; numbers were expected"):
        fo.generate(keras.Sequential([layers.Input((1,)), layers.Dense(3)]), TEXTS[:, None])
