"""tf.data datasets, tensors and Keras' indexable batches as sources."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fo_onnx.errors import DataError
from fo_onnx.options import DataOptions
from fo_onnx.protocols import Batch, Source
from fo_onnx.sources import open_source
from fo_onnx.sources.arrays import ArraySource
from fo_onnx.spec import InputSignature

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
from fo_onnx_keras.sources import TensorFlowSources, to_array  # noqa: E402

X = np.arange(20, dtype=np.float32).reshape(10, 2)
Y = np.arange(10) % 3
ROWS = InputSignature(("x",), (), (2,))
slices = tf.data.Dataset.from_tensor_slices


def opened(data: Any, **options: Any) -> Source:
    return open_source(data, DataOptions(**options), [TensorFlowSources()])


def whole(source: Source) -> Batch:
    (batch,) = source.batches(100)
    return batch


def generated(batch: int | None = None) -> Any:
    specs = (tf.TensorSpec((2,), tf.float32), tf.TensorSpec((), tf.int64))
    found = tf.data.Dataset.from_generator(lambda: zip(X, Y, strict=True), output_signature=specs)
    return found if batch is None else found.batch(batch)


def unordered() -> Any:
    options = tf.data.Options()
    options.deterministic = False
    return slices(X).with_options(options)


def interleaved() -> Any:
    return tf.data.Dataset.range(2).interleave(lambda i: slices(X), num_parallel_calls=2, deterministic=False)


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches by position, with sample weights."""

    def __init__(self, weights: bool = False, shuffle: bool = False) -> None:
        super().__init__()
        self.weights, self.shuffle = weights, shuffle

    @property
    def num_batches(self) -> int:
        return math.ceil(len(X) / 4)

    def __getitem__(self, i: int) -> Any:
        part = slice(4 * i, 4 * i + 4)
        return (X[part], Y[part], np.ones(len(X[part]))) if self.weights else (X[part], Y[part])


class Endless(Batches):
    @property
    def num_batches(self) -> None:  # type: ignore[override]
        return None

    def __getitem__(self, i: int) -> Any:
        return super().__getitem__(i % 3)


@pytest.mark.parametrize("signature", [None, ROWS], ids=["unknown model", "known model"])
@pytest.mark.parametrize(
    ("data", "length"),
    [
        (lambda: slices((X, Y)), 10),
        (lambda: slices((X, Y)).batch(3), 10),
        (lambda: slices((X, Y)).batch(3).prefetch(2).cache(), 10),
        (lambda: slices((X, Y)).map(lambda x, y: (x * 1, y), num_parallel_calls=2).batch(3, num_parallel_calls=2), 10),
        (lambda: slices((X, Y)).padded_batch(4), 10),
        (lambda: slices((X, Y)).batch(5, drop_remainder=True), 10),
        (lambda: slices({"x": X, "label": Y}).batch(4), None),
        (lambda: tf.data.Dataset.zip((slices(X), slices(Y))).batch(4), 10),
        (lambda: slices((X, Y)).batch(3).unbatch(), None),
        (lambda: generated(), None),
        (lambda: generated(3), None),
        (lambda: (tf.constant(X), tf.constant(Y)), 10),
        (lambda: {"x": tf.Variable(X), "y": Y}, 10),
        (lambda: [(tf.constant(x), int(y)) for x, y in zip(X, Y, strict=True)], 10),
        (lambda: Batches(), None),
        (lambda: Batches(weights=True), None),
    ],
)
def test_rows_come_in_order_with_their_labels(data: Callable[[], Any], length: int | None, signature: Any) -> None:
    source = opened(data(), signature=signature)

    assert source.length in (length, 10) if signature is not None else source.length == length
    for size in (4, 100):
        batches = list(source.batches(size)) if size == 4 else [whole(source)]
        np.testing.assert_array_equal(np.concatenate([next(iter(b.inputs.values())) for b in batches]), X)
        assert np.concatenate([b.labels for b in batches]).tolist() == Y.tolist()
        assert np.concatenate([b.ids for b in batches]).tolist() == list(range(10))


def test_labels_of_two_axes_are_told_from_inputs_by_the_model() -> None:
    batch = whole(opened(slices((X, Y[:, None])).batch(3), signature=ROWS))
    assert batch.labels is not None
    assert batch.labels.tolist() == Y.tolist()


def test_without_labels_the_models_ranks_tell_batches() -> None:
    assert opened(slices(X), signature=ROWS).length == 10
    assert opened(slices(X).batch(3), signature=ROWS).length == 10
    windows = opened(slices(X).batch(5), signature=InputSignature(("x",), (), (3,)))
    assert windows.length == 2
    assert whole(windows).inputs["0"].shape == (2, 5, 2)


@pytest.mark.parametrize(
    ("data", "rows", "message"),
    [
        (lambda: slices((X, Y)).shuffle(5).batch(3), 10, r"random order \(shuffle\).*without, or give the ids"),
        (lambda: slices(X).map(lambda x: x).shuffle(5, reshuffle_each_iteration=False).prefetch(1), 10, "shuffle"),
        (
            lambda: tf.data.Dataset.range(2).flat_map(lambda i: slices(X).shuffle(3)),
            20,
            "shuffle, in a function that flatmap",
        ),
        (lambda: tf.data.Dataset.zip((slices(X).shuffle(3), slices(Y))), 10, "shuffle"),
        (lambda: tf.data.Dataset.sample_from_datasets([slices(X), slices(X)]), 20, r"\(random\)"),
        (lambda: slices(X).map(lambda x: x, 2, deterministic=False), 10, r"deterministic=False \(parallelmap\)"),
        (lambda: slices(X).batch(2, False, 2, deterministic=False), 10, r"deterministic=False \(parallelbatch\)"),
        (interleaved, 20, r"in parallel with deterministic=False \(parallelinterleave\)"),
        (unordered, 10, "options say deterministic=False.*options.deterministic = True"),
        (lambda: Batches(shuffle=True), 10, "Batches was made with shuffle=True"),
    ],
)
def test_rows_out_of_order_are_refused(data: Callable[[], Any], rows: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(data())
    assert len(whole(opened(data(), ids=[f"r{i}" for i in range(rows)]))) == rows, "with ids it is the caller's order"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: slices(X).repeat(), r"has no end \(it was made with repeat.*limit="),
        (lambda: Endless(), r"Endless says that it has no end \(num_batches is None\).*limit="),
        (
            lambda: slices(X).batch(3, drop_remainder=True),
            "drop_remainder=True and would lose the last 1 of 10 rows. Make it",
        ),
        (lambda: generated().batch(3, drop_remainder=True), "drop_remainder=True and may lose rows"),
        (lambda: slices(X).ignore_errors(), r"ignore_errors\(\), which leaves out the rows.*on_error='skip'"),
        (lambda: tf.ragged.constant([[1.0], [1.0, 2.0]]), r"RaggedTensor of shape \(2, None\).*\.to_tensor\(\)"),
        (lambda: (tf.sparse.from_dense(X), Y), r"SparseTensor of shape \(10, 2\).*tf.sparse.to_dense"),
        (lambda: tf.constant(["a", "b"]), "has the dtype object.*numbers were expected"),
    ],
)
def test_what_cannot_be_used(data: Callable[[], Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        whole(opened(data()))


def test_limits_end_what_has_no_end() -> None:
    assert len(whole(opened(slices(X).repeat(), limit=25))) == 25
    assert len(whole(opened(Endless(), limit=13))) == 13
    assert len(whole(opened(slices(X).batch(3, drop_remainder=True), limit=9))) == 9


def test_labels_that_are_no_class() -> None:
    with pytest.raises(DataError, match=r"labels that are no class: an array of shape \(10, 3\).*labels=rows.argmax"):
        whole(opened((tf.constant(X), tf.one_hot(Y, 3)), signature=ROWS))
    with pytest.raises(DataError, match="labels that are no class"):
        whole(opened(slices((X, tf.one_hot(Y, 3))).batch(3), signature=ROWS))


def test_a_failure_in_a_pipeline_names_the_position() -> None:
    def reading(x: Any) -> Any:
        with tf.control_dependencies([tf.debugging.assert_less(x[0], 12.0, "no reading")]):
            return tf.identity(x)

    source = opened(slices(X).map(reading))
    with pytest.raises(DataError) as caught:
        list(source.batches(4))
    assert caught.value.position == 6
    assert "no reading" in str(caught.value)


def test_an_iterator_is_read_once() -> None:
    source = opened(iter(slices((X, Y)).batch(3)))
    assert len(whole(source)) == 10
    with pytest.raises(DataError, match="can be read only once"):
        whole(source)


def test_tensors_keep_their_place_in_memory() -> None:
    assert isinstance(opened(tf.constant(X)), ArraySource)
    assert to_array(tf.cast(X, tf.bfloat16)).dtype == np.float32
    assert to_array(tf.constant(3)).shape == ()


def test_what_is_not_tensorflows_is_left_alone() -> None:
    for data in (X, (X, Y), {"x": X}, [1, 2], "x.npy", None, 3, iter([X]), tf.data.Dataset):
        assert not TensorFlowSources().accepts(data)
    program = (
        "import sys, numpy as np\nfrom fo_onnx_keras.sources import TensorFlowSources\n"
        "assert not TensorFlowSources().accepts((np.zeros(3), np.zeros(3)))\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
