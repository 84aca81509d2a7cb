"""tf.data datasets, tensors and Keras' indexable batches as sources."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fo_onnx.contracts.batch import Batch
from fo_onnx.contracts.options import DataOptions
from fo_onnx.contracts.source import Source
from fo_onnx.contracts.spec import InputSignature
from fo_onnx.errors import DataError
from fo_onnx.sources import open_source
from fo_onnx.sources.arrays import ArraySource

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


def slice_row(row: Any) -> Any:
    return slices(row[None])


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
        (lambda: slices((X, Y, np.ones(10))), 10),
        (lambda: slices((X, Y, np.ones(10, np.float32))).batch(4), 10),
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


def test_counting_the_rows_of_batches_leaves_what_they_are_made_of() -> None:
    factor = tf.Variable(2.0)
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(tf.range(10), tf.range(10) + 5), -1)
    cached = slices((X, Y)).cache().batch(3)
    scaled = slices((X, Y)).map(lambda x, y: (x * factor, y)).batch(3)
    looked_up = slices(np.arange(10, dtype=np.int32)[:, None]).map(table.lookup).batch(3)

    sources = [opened(dataset, signature=ROWS) for dataset in (cached, scaled, looked_up)]

    assert [source.length for source in sources] == [10, 10, 10]
    assert factor.numpy() == 2.0
    factor.assign(3.0)
    for source, rows in zip(sources, (X, X * 3, np.arange(5, 15)[:, None]), strict=True):
        np.testing.assert_array_equal(whole(source).inputs["0"], rows)
    of_batches = slices((X, Y)).batch(5).map(lambda x, y: (x, y)).batch(2)
    assert opened(of_batches).length is None, "its elements are batches of batches"


def test_data_in_memory_do_not_hide_the_steps() -> None:
    rows = np.arange(4000, dtype=np.float32).reshape(1000, 4)
    source = opened(slices(rows).map(lambda x: x * 1).batch(7), signature=ROWS)
    assert source.length == 1000
    np.testing.assert_array_equal(next(source.batches(1000)).inputs["0"], rows)
    with pytest.raises(DataError, match=r"\(shuffle\)"):
        opened(slices(rows).shuffle(1000).batch(7))


RANDOM = [
    (lambda: slices((X, Y)).shuffle(5).batch(3), 10, r"\(shuffle\).*reshuffle_each_iteration=False"),
    (lambda: slices(X).shuffle(5, seed=1), 10, r"\(shuffle\).*cache\(\) behind the shuffle"),
    (lambda: slices(X).cache().shuffle(5), 10, "shuffle"),
    (
        lambda: tf.data.Dataset.range(2).flat_map(lambda i: slices(X).shuffle(3)),
        20,
        "shuffle, in a function that flatmap",
    ),
    (lambda: tf.data.Dataset.zip((slices(X).shuffle(3), slices(Y))), 10, "shuffle"),
    (lambda: tf.data.TextLineDataset(slices(["a.txt", "b.txt"]).shuffle(2)), 10, "shuffle"),
    (lambda: tf.compat.v1.data.Dataset.from_tensor_slices(X).shuffle(3).batch(2), 10, "shuffle"),
    (
        lambda: tf.data.Dataset.sample_from_datasets([slices(X), slices(X)], seed=3, rerandomize_each_iteration=True),
        20,
        r"\(random\)",
    ),
    (lambda: slices(X).map(lambda x: x, 2, deterministic=False), 10, r"deterministic=False \(parallelmap\)"),
    (lambda: slices(X).batch(2, False, 2, deterministic=False), 10, r"deterministic=False \(parallelbatch\)"),
    (interleaved, 20, r"in parallel with deterministic=False \(parallelinterleave\)"),
    (unordered, 10, "options say deterministic=False.*options.deterministic = True"),
]
"""Datasets whose order is another one each time that they are read."""
FIXED = [
    (lambda: slices(X).map(lambda x: x).shuffle(5, reshuffle_each_iteration=False).prefetch(1), 10, "shuffle"),
    (lambda: slices(X).shuffle(10, reshuffle_each_iteration=False).batch(3), 10, "shuffle"),
    (lambda: slices(X).shuffle(10).cache().batch(3).map(lambda x: x), 10, "shuffle"),
    (lambda: tf.data.Dataset.range(1).flat_map(lambda i: slices(X).shuffle(9)).cache(), 10, "shuffle"),
    (lambda: tf.data.Dataset.sample_from_datasets([slices(X), slices(-X)], seed=3), 20, "random"),
    (
        lambda: slices(X).map(lambda x: x, 2, deterministic=False).cache().interleave(slice_row, num_parallel_calls=2),
        10,
        r"deterministic=False \(parallelmap\)",
    ),
    (lambda: Batches(shuffle=True), 10, "Batches was made with shuffle=True"),
]
"""Datasets out of order, each time in the same one."""


@pytest.mark.parametrize(("data", "rows", "message"), [*RANDOM, *FIXED])
def test_rows_out_of_order_are_refused(data: Callable[[], Any], rows: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(data())


@pytest.mark.parametrize(("data", "rows", "message"), RANDOM)
def test_no_ids_fit_an_order_that_changes(data: Callable[[], Any], rows: int, message: str) -> None:
    with pytest.raises(
        DataError, match=f"{message.split('.*')[0]}.*the ids= that were given are those of one such order"
    ):
        opened(data(), ids=list(range(rows)))


@pytest.mark.parametrize(("data", "rows", "message"), FIXED)
def test_ids_of_a_fixed_order_are_the_callers(data: Callable[[], Any], rows: int, message: str) -> None:
    dataset = data()
    read = np.concatenate([np.reshape(e[0] if isinstance(e, tuple) else e, (-1, 2)) for e in iter(dataset)])
    source = opened(dataset, ids=[f"r{i}" for i in range(rows)])
    source.peek(3)
    for _ in range(2):
        np.testing.assert_array_equal(
            whole(source).inputs["0"], read, "the run's order is the one that was read before"
        )


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
    ],
)
def test_what_cannot_be_used(data: Callable[[], Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        whole(opened(data()))


def test_text_is_refused_for_models_of_numbers() -> None:
    with pytest.raises(DataError, match="has the dtype <U1; numbers were expected"):
        whole(opened(tf.constant(["a", "b"]), signature=InputSignature(("x",))))


@pytest.mark.parametrize("batched", [True, False])
def test_labels_of_text_stay_text(batched: bool) -> None:
    dataset = slices((X, [f"class {i}" for i in Y]))
    batch = whole(opened(dataset.batch(4) if batched else dataset))
    assert batch.labels is not None
    assert batch.labels.tolist() == [f"class {i}" for i in Y]


def test_limits_end_what_has_no_end() -> None:
    assert len(whole(opened(slices(X).repeat(), limit=25))) == 25
    assert len(whole(opened(Endless(), limit=13))) == 13
    assert len(whole(opened(slices(X).batch(3, drop_remainder=True), limit=9))) == 9


def test_labels_that_are_no_class() -> None:
    soft = tf.fill((10, 3), 1 / 3)
    with pytest.raises(DataError, match=r"labels that are no class: an array of shape \(10, 3\).*labels=rows.argmax"):
        whole(opened((tf.constant(X), soft), signature=ROWS))
    with pytest.raises(DataError, match="labels that are no class"):
        whole(opened(slices((X, soft)).batch(3), signature=ROWS))


def test_one_hot_labels_count_as_classes() -> None:
    one_hot = tf.one_hot(Y, 3)
    for data in ((tf.constant(X), one_hot), slices((X, one_hot)).batch(3), slices((X, one_hot))):
        assert whole(opened(data, signature=ROWS)).labels.tolist() == Y.tolist()  # type: ignore[union-attr]


def test_weights_are_told_from_the_label_of_a_model_of_several_inputs() -> None:
    pair = InputSignature(("a", "b"), (), (2, 2))
    flat = whole(opened(slices((X, -X, Y)).batch(4), signature=pair))
    np.testing.assert_array_equal(flat.inputs["1"], -X)
    assert flat.labels is not None
    assert flat.labels.tolist() == Y.tolist()
    nested = whole(opened(slices(((X, -X), Y, np.ones(10, np.float32))).batch(4), signature=pair))
    np.testing.assert_array_equal(nested.inputs["1"], -X)
    assert nested.labels is not None
    assert nested.labels.tolist() == Y.tolist()


def test_text_is_text() -> None:
    source = opened((tf.constant(X), tf.constant(np.array(["cat", "dog", "ähre"])[Y])))
    assert source.class_names == ("cat", "dog", "ähre")
    assert whole(source).labels.tolist() == Y.tolist()  # type: ignore[union-attr]
    assert to_array(tf.constant([b"\xff\xd8"])).tolist() == [b"\xff\xd8"]


INTERRUPTED = """
import signal, sys, time
import numpy as np, tensorflow as tf
from fo_onnx.contracts.options import DataOptions
from fo_onnx.sources import open_source
from fo_onnx_keras.sources import TensorFlowSources

def rows():
    for i in range(400):
        time.sleep(0.05)
        yield np.zeros((100, 3), np.float32)

dataset = tf.data.Dataset.from_generator(rows, output_signature=tf.TensorSpec((None, 3)))
source = open_source(dataset, DataOptions(), [TensorFlowSources()])

def run():
    for n, batch in enumerate(source.batches(100)):
        if n == 3:
            signal.raise_signal(signal.SIGINT) if sys.argv[1] == "between" else signal.setitimer(signal.ITIMER_REAL, 0.02)

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs do without
signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
run()
"""


@pytest.mark.parametrize("when", ["between", "within"])
def test_a_program_that_is_interrupted_ends(when: str) -> None:
    found = subprocess.run([sys.executable, "-c", INTERRUPTED, when], capture_output=True, text=True, timeout=60)
    assert found.returncode == -2
    assert "KeyboardInterrupt" in found.stderr


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
