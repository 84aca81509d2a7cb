"""What goes wrong in a user's hands: each error has a type, and says what was done, found and expected, and what to do.

Damaged files of results are in ``tests/store``, bad rows of each source in ``tests/contracts/test_source_failures.py``.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.errors import FoOnnxError, ModelNotFoundError, StoreExistsError, StoreNotFoundError, StoreWriteError
from fo_onnx.store import files

torch = pytest.importorskip("torch")
import onnx  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from torch import nn  # noqa: E402

RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((20, 5), dtype=np.float32)
IMAGES = RNG.standard_normal((6, 3, 8, 8), dtype=np.float32)
GPU_HERE = torch.cuda.is_available()


def write_onnx(
    path: Path, nodes: list[Any], outputs: dict[str, tuple[int, list[Any]]], **constants: np.ndarray
) -> Path:
    graph = helper.make_graph(
        [helper.make_node(op, inputs, [name], **attributes) for op, inputs, name, attributes in nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5])],
        [helper.make_tensor_value_info(n, dtype, shape) for n, (dtype, shape) in outputs.items()],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


class Returns(nn.Module):
    """A net whose logits go through a function."""

    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.linear, self.function = nn.Linear(5, 3), function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.linear(x))


class Failing:
    """2,000 rows of which one cannot be read; `mend` mends it."""

    def __init__(self, at: int = 1000) -> None:
        self.at: int | None = at

    def __len__(self) -> int:
        return 2000

    def __getitem__(self, i: int) -> np.ndarray:
        if i == self.at:
            raise OSError("the disk did not answer")
        return ROWS[i % 20] * (1 + i / 2000)

    def mend(self) -> None:
        self.at = None


@dataclass(frozen=True)
class Models:
    """What the tests give to fo-onnx, made once."""

    folder: Path
    linear: nn.Module
    conv: nn.Module
    named: fo.OnnxModel
    images: fo.OnnxModel
    plain: Path


@pytest.fixture(scope="module")
def m(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    linear = nn.Linear(5, 3).eval()
    conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    with torch.no_grad():
        linear.weight.mul_(3)
    matrix = RNG.standard_normal((5, 3), dtype=np.float32)
    plain = write_onnx(
        folder / "plain.onnx", [("MatMul", ["x", "W"], "z", {})], {"z": (TensorProto.FLOAT, ["n", 3])}, W=matrix * 3
    )
    write_onnx(
        folder / "argmax.onnx", [("ArgMax", ["x"], "y", {"axis": 1, "keepdims": 0})], {"y": (TensorProto.INT64, ["n"])}
    )
    write_onnx(
        folder / "positions.onnx",
        [("Unsqueeze", ["x", "axes"], "u", {}), ("Concat", ["u", "u"], "y", {"axis": 2})],
        {"y": (TensorProto.FLOAT, ["n", 5, 2])},
        axes=np.array([2]),
    )
    write_onnx(folder / "mean.onnx", [("ReduceMean", ["x"], "y", {"keepdims": 0})], {"y": (TensorProto.FLOAT, [])})
    write_onnx(
        folder / "two.onnx",
        [("Relu", ["x"], "y", {}), ("Tanh", ["x"], "w", {})],
        {"y": (TensorProto.FLOAT, ["n", 5]), "w": (TensorProto.FLOAT, ["n", 5])},
    )
    write_onnx(folder / "multilabel.onnx", [("Sigmoid", ["x"], "y", {})], {"y": (TensorProto.FLOAT, ["n", 5])})
    (folder / "truncated.onnx").write_bytes(plain.read_bytes()[:60])
    (folder / "text.onnx").write_text("this is no model")
    (folder / "empty.onnx").write_bytes(b"")
    return Models(
        folder, linear, conv, fo.export(linear, ROWS, folder / "named.onnx", class_names=["a", "b", "c"]),
        fo.export(conv, IMAGES, folder / "images.onnx"), plain,
    )  # fmt: skip


def nan_weights() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Linear(5, 3).eval()
    with torch.no_grad():
        net.weight[0, 0] = float("nan")
    return net


Case = tuple[Callable[[Models, Path], Any], type[FoOnnxError], type[Exception], list[str]]
gen = fo.generate

OUTPUTS: dict[str, Case] = {
    "torch scalar": (lambda m, t: gen(Returns(lambda z: z.mean()), ROWS), fo.OutputError, ValueError,
        ["Returns gives an output of shape (), a scalar", "one row of class scores per sample was expected"]),
    "torch 3-D": (lambda m, t: gen(Returns(lambda z: z[:, None].expand(-1, 4, -1)), ROWS), fo.OutputError, ValueError,
        ["an output of shape (20, 4, 3); (n, classes) was expected", "output_name=", "output_transform="]),
    "torch dict without logits": (lambda m, t: gen(Returns(lambda z: {"a": z, "b": z}), ROWS), fo.OutputError, ValueError,
        ["no output called 'logits'; say which one with output_name=", "a (20, 3), b (20, 3)"]),
    "torch dict, another name": (lambda m, t: gen(Returns(lambda z: {"a": z}), ROWS, output_name="q"), fo.OutputError,
        ValueError, ["Returns has no output 'q'; its outputs are a (20, 3)"]),
    "torch list of text": (lambda m, t: gen(Returns(lambda z: ["cat"] * len(z)), ROWS), fo.OutputError, ValueError,
        ["Returns returns a list of str, which holds no tensor; class scores (n, classes) were expected"]),
    "torch nothing": (lambda m, t: gen(Returns(lambda z: None), ROWS), fo.OutputError, ValueError,
        ["Returns returns a NoneType, which holds no tensor"]),
    "torch predicted classes": (lambda m, t: gen(Returns(lambda z: z.argmax(1)), ROWS), fo.OutputError, ValueError,
        ["Returns gives one int64 number per sample, as a predicted class is", "Leave out the argmax"]),
    "torch multi-label": (lambda m, t: gen(Returns(torch.sigmoid), ROWS), fo.OutputError, ValueError,
        ["ends in a Sigmoid over 3 classes: a multi-label model", "output_transform="]),
    "torch fewer rows": (lambda m, t: gen(Returns(lambda z: z[1:]), ROWS), fo.OutputError, ValueError,
        ["an output of shape (19, 3) for 20 rows; one row per sample was expected, shape (20, classes)"]),
    "torch no classes": (lambda m, t: gen(Returns(lambda z: z[:, :0]), ROWS), fo.OutputError, ValueError, ["no classes"]),
    "callable scalar": (lambda m, t: gen(lambda x: x.mean(), ROWS), fo.OutputError, ValueError, ["a scalar"]),
    "callable 3-D": (lambda m, t: gen(lambda x: x[:, None].repeat(2, 1), ROWS), fo.OutputError, ValueError,
        ["an output of shape (20, 2, 5); (n, classes) was expected"]),
    "callable dict without logits": (lambda m, t: gen(lambda x: {"a": x}, ROWS), fo.OutputError, ValueError,
        ["returns a dict without 'logits'; its keys are ['a']. Say output_name="]),
    "callable list of text": (lambda m, t: gen(lambda x: ["cat"] * len(x), ROWS), fo.OutputError, ValueError,
        ["returns text; class scores as numbers, shape (n, classes), were expected"]),
    "callable nothing": (lambda m, t: gen(lambda x: None, ROWS), fo.OutputError, ValueError,
        ["returns an object of type NoneType; class scores as numbers"]),
    "callable ragged": (lambda m, t: gen(lambda x: [[1, 2], [1]], ROWS), fo.OutputError, ValueError,
        ["returns a list that is no array (", "class scores as numbers, shape (n, classes), were expected"]),
    "callable raises": (lambda m, t: gen(lambda x: 1 / 0, ROWS), fo.DataError, ValueError,
        ["failed: ZeroDivisionError: division by zero", "float32 (20, 5)"]),
    "said to be probabilities": (lambda m, t: gen(m.linear, ROWS, output="probs"), fo.OutputError, ValueError,
        ["Linear was said to give output='probs'", "of its first 20 rows are no such thing", "Say output='logits'"]),
    "said to be binary": (lambda m, t: gen(m.linear, ROWS, output="binary_logits"), fo.OutputError, ValueError,
        ["shape (20, 3), which is no 'binary_logits': (n,) or (n, 1) was expected"]),
    "logits of probabilities": (
        lambda m, t: gen(nn.Sequential(m.linear, nn.Softmax(1)), ROWS, keep_logits=True), fo.OutputError, ValueError,
        ["keep_logits=True was asked for, but Sequential gives probs, which has no logits"]),
    "temperature of probabilities": (
        lambda m, t: gen(nn.Sequential(m.linear, nn.Softmax(1)), ROWS, temperature=2), fo.OutputError, ValueError,
        ["gives probs, on which temperature=2 cannot act", "before its softmax"]),
    "transform of another shape": (lambda m, t: gen(m.linear, ROWS, output_transform=lambda r: r[0]), fo.OutputError,
        ValueError, ["output_transform= gave an array of shape (3,)", "(20, classes) were expected"]),
    "transform raises": (lambda m, t: gen(m.linear, ROWS, output_transform=lambda r: r.nothing), fo.OutputError, ValueError,
        ["output_transform= failed on a raw output of shape (20, 3): AttributeError"]),
    "NaN weights": (lambda m, t: gen(nan_weights(), ROWS), fo.OutputError, ValueError,
        ["Linear gives no finite output on the first 20 rows", "Look for NaN in the weights or in the data"]),
    "NaN weights, exported": (lambda m, t: fo.export(nan_weights(), ROWS, t / "n.onnx"), fo.OutputError, ValueError,
        ["Look for NaN in the weights"]),
    "NaN weights of known meaning": (lambda m, t: gen(nan_weights(), ROWS, output="logits"), fo.DataError, ValueError,
        ["row 0 (id 0): its output is no distribution", "though its input is finite", "NaN in the model's weights"]),
}  # fmt: skip

MODELS: dict[str, Case] = {
    "no model": (lambda m, t: gen(3, ROWS), fo.ModelError, ValueError,
        ["an object of type int is no model", "torch", "a callable over numpy arrays was expected"]),
    "missing": (lambda m, t: gen(m.folder / "none.onnx", ROWS), ModelNotFoundError, FileNotFoundError,
        ["none.onnx: found nothing; an .onnx file was expected"]),
    "missing, another suffix": (lambda m, t: gen(m.folder / "none.model", ROWS), ModelNotFoundError, FileNotFoundError,
        ["known suffixes are .onnx, ", ".pt", "there is no such file"]),
    "folder": (lambda m, t: gen(m.folder, ROWS), fo.ModelError, ValueError, ["known suffixes are .onnx"]),
    "truncated": (lambda m, t: gen(m.folder / "truncated.onnx", ROWS), fo.ModelError, ValueError,
        ["truncated.onnx: it is no ONNX file, or it is truncated", "Copy or export it again"]),
    "text": (lambda m, t: gen(m.folder / "text.onnx", ROWS), fo.ModelError, ValueError,
        ["text.onnx: it is no ONNX file, or it is truncated"]),
    "empty": (lambda m, t: gen(m.folder / "empty.onnx", ROWS), fo.ModelError, ValueError,
        ["holds no graph with nodes and outputs, so it is no ONNX model"]),
    "gives classes": (lambda m, t: gen(m.folder / "argmax.onnx", ROWS), fo.OutputError, ValueError,
        ["its output 'y' is of type int64; class scores as floating-point numbers were expected", "output_name="]),
    "gives rows per position": (lambda m, t: gen(m.folder / "positions.onnx", ROWS), fo.OutputError, ValueError,
        ["positions.onnx gives an output of shape", "(n, classes) was expected"]),
    "gives a scalar": (lambda m, t: gen(m.folder / "mean.onnx", ROWS), fo.OutputError, ValueError, ["a scalar"]),
    "several outputs": (lambda m, t: gen(m.folder / "two.onnx", ROWS), fo.ModelError, ValueError,
        ["it has several outputs, ['y', 'w']; say which one with output_name="]),
    "no such output": (lambda m, t: gen(m.folder / "two.onnx", ROWS, output_name="q"), fo.ModelError, ValueError,
        ["it has no output 'q'; its outputs are ['y', 'w']"]),
    "multi-label": (lambda m, t: gen(m.folder / "multilabel.onnx", ROWS), fo.OutputError, ValueError,
        ["ends in a Sigmoid over 5 classes: a multi-label model gives no distribution"]),
    "another output than exported": (lambda m, t: gen(m.named, ROWS) and gen(m.named.path, ROWS, output_name="q"),
        fo.ModelError, ValueError, ["was exported with the output 'output' only; export it again with output_name='q'"]),
    "a file in torch": (lambda m, t: gen(m.plain, ROWS, runner="native"), fo.OptionError, ValueError,
        ["runner='native' was asked for, but", "has no other runner"]),
    "a callable in ONNX": (lambda m, t: gen(lambda x: x @ np.ones((5, 3)), ROWS, runner="onnx"), fo.ExportError,
        RuntimeError, ["a plain callable has no graph that could become ONNX. Give the model of its framework instead"]),
    "verify without original": (lambda m, t: fo.verify(m.named, m.plain, ROWS), fo.ModelError, ValueError,
        ["plain.onnx is an ONNX file; the model that", "came from was expected"]),
    "verify turned round": (lambda m, t: fo.verify(m.linear, m.named, ROWS), fo.ModelError, ValueError,
        ["takes an exported file first, and the model that it came from second"]),
}  # fmt: skip

DATA: dict[str, Case] = {
    "example of another width": (lambda m, t: fo.export(m.linear, ROWS[:, :4], t / "x.onnx"), fo.DataError, ValueError,
        ["the model does not take the data: running Linear in torch on input: float32 (20, 4) failed", "20x4 and 5x3",
         "Check their axes"]),
    "example of another rank": (lambda m, t: fo.export(m.conv, IMAGES[:, 0], t / "x.onnx"), fo.DataError, ValueError,
        ["the model does not take the data", "Rows of the data are 0: float32 (8, 8)", "a missing axis"]),
    "no example": (lambda m, t: fo.export(m.linear, None, t / "x.onnx"), fo.OptionError, ValueError,
        ["export needs example=: one batch, or the dataset"]),
    "empty example": (lambda m, t: fo.export(m.linear, ROWS[:0], t / "x.onnx"), fo.DataError, ValueError,
        ["needs at least one row to trace the model with; example= is empty"]),
    "missing example": (lambda m, t: fo.export(m.linear, t / "none.npy", t / "x.onnx"), fo.DataError, FileNotFoundError,
        ["there are no data at", "none.npy"]),
    "one sample for a batch": (lambda m, t: gen(m.images, IMAGES[0]), fo.DataError, ValueError,
        ["rows have shape (8, 8)", "takes rows of shape (3, 8, 8): an axis is missing", "batch axis of a single sample"]),
    "no channel axis": (lambda m, t: gen(m.images, IMAGES[:, 0]), fo.DataError, ValueError,
        ["an axis is missing (a channel axis"]),
    "other channels": (lambda m, t: gen(m.images, IMAGES[:, :1]), fo.DataError, ValueError,
        ["rows have shape (1, 8, 8), and its input input: float32 (n, 3, 8, 8) takes rows of shape (3, 8, 8)",
         "It happened on the batch of rows 0 to 5."]),
    "NHWC": (lambda m, t: gen(m.images, IMAGES.transpose(0, 2, 3, 1)), fo.DataError, ValueError,
        ["looks like NHWC (channels last) where the model takes NCHW", "transform=lambda x: x.transpose(2, 0, 1)"]),
    "NHWC for torch": (lambda m, t: gen(m.conv, IMAGES.transpose(0, 2, 3, 1)), fo.DataError, ValueError,
        ["channels last, NHWC", "transform=lambda x: x.transpose(2, 0, 1)"]),
    "pixels": (lambda m, t: gen(m.images, (IMAGES * 10).astype(np.uint8)), fo.DataError, ValueError,
        ["the rows are uint8, and its input input: float32 (n, 3, 8, 8) takes float32",
         "transform=lambda x: np.asarray(x, 'float32'), scaled"]),
    "pixels for torch": (lambda m, t: gen(m.conv, (IMAGES * 10).astype(np.uint8)), fo.DataError, ValueError,
        ["running Sequential in torch on input: uint8 (6, 3, 8, 8) failed", "Rows of the data are 0: uint8 (3, 8, 8)",
         "Convert them, for example with transform=lambda x: np.asarray(x, 'float32'), scaled as the model was trained."]),
    "text": (lambda m, t: gen(m.named, np.array([["a"] * 5] * 3)), fo.DataError, ValueError,
        ["has the dtype <U1; numbers were expected"]),
    "complex numbers": (lambda m, t: gen(m.named, ROWS.astype(np.complex64)), fo.DataError, ValueError,
        ["the rows are complex64, and its input input: float32 (n, 5) takes float32"]),
    "too many inputs": (lambda m, t: gen(m.named, {"a": ROWS, "b": ROWS}), fo.DataError, ValueError,
        ["the model takes 1 input(s), input: float32 (n, 5); the data has 2, 'a', 'b'", "input_getter="]),
    "arrays of unequal length": (lambda m, t: gen(nn.Bilinear(5, 5, 3), (ROWS, ROWS[:3])), fo.DataError, ValueError,
        ["unequal numbers of rows"]),
    "ragged rows": (lambda m, t: gen(m.named, [[1.0] * 5, [1.0] * 4]), fo.DataError, ValueError,
        ["row 1 (id 1) has the shape (4,) where the others have (5,) (ragged rows)", "pad them"]),
    "no data": (lambda m, t: gen(m.named, None), fo.DataError, ValueError,
        ["rows cannot be read from a builtins.NoneType. What can: numpy arrays"]),
    "a number": (lambda m, t: gen(m.named, np.float32(3)), fo.DataError, ValueError,
        ["a single number of shape (), not an array of rows, (n, …)"]),
    "missing data": (lambda m, t: gen(m.named, t / "none.npy"), fo.DataError, FileNotFoundError, ["there are no data at"]),
    "verify on other rows": (lambda m, t: fo.verify(m.named, m.linear, ROWS[:, :3]), fo.DataError, ValueError,
        ["the model does not take the data", "x3 and 5x3"]),
    "verify on none": (lambda m, t: fo.verify(m.named, m.linear, ROWS[:0]), fo.DataError, ValueError,
        ["comparing needs at least one row; the data is empty"]),
    "labels of another length": (lambda m, t: gen(m.named, ROWS, labels=[0, 1]), fo.DataError, ValueError,
        ["labels= has 2 entries, but the data have 20 rows: one per row was expected"]),
    "labels that are no class": (lambda m, t: gen(m.named, ROWS, labels=[0] * 19 + [5]), fo.DataError, ValueError,
        ["row with id 19: its label 5 is no class; the model has 3 classes, 0 to 2"]),
    "negative labels": (lambda m, t: gen(m.named, ROWS, labels=[-1] * 20), fo.DataError, ValueError,
        ["row with id 0: its label -1 is no class; the model has 3 classes, 0 to 2", "leave the labels out with labels=False"]),
    "half labels": (lambda m, t: gen(m.named, ROWS, labels=[0.5] * 20), fo.DataError, ValueError, ["row 0 has the label 0.5"]),
    "labels of no class by name": (lambda m, t: gen(m.named, ROWS, labels=["a"] * 19 + ["z"]), fo.DataError, ValueError,
        ["the data has the class(es) 'z', which the model has not; its classes are 'a', 'b', 'c'"]),
    "ids twice": (lambda m, t: gen(m.named, ROWS, ids=[1] * 20), fo.DataError, ValueError,
        ["ids= holds 1 twice, at positions 0 and 1; each id must be unique"]),
    "ids of another length": (lambda m, t: gen(m.named, ROWS, ids=[1]), fo.DataError, ValueError,
        ["ids= has 1 entries, but the data have 20 rows"]),
}  # fmt: skip

OPTIONS: dict[str, Case] = {
    "class names, number": (lambda m, t: gen(m.linear, ROWS, class_names=["a", "b"]), fo.OptionError, ValueError,
        ["class_names holds 2 names, and Linear has 3 classes"]),
    "class names, number, exported": (lambda m, t: fo.export(m.linear, ROWS, t / "y.onnx", class_names=["a"]), fo.OptionError,
        ValueError, ["class_names holds 1 names, and Linear has 3 classes"]),
    "class names, number, file": (lambda m, t: gen(m.plain, ROWS, class_names=["a", "b"]), fo.OptionError, ValueError,
        ["class_names holds 2 names, and plain has 3 classes"]),
    "class names doubled": (lambda m, t: gen(m.linear, ROWS, class_names=["a", "b", "b"]), fo.OptionError, ValueError,
        ["class_names holds 'b' more than once"]),
    "class names, one text": (lambda m, t: gen(m.linear, ROWS, class_names="abc"), fo.OptionError, ValueError,
        ["class_names must be a sequence of text"]),
    "class names other than the model's": (lambda m, t: gen(m.named, ROWS, class_names=["a", "c", "b"]), fo.OptionError,
        ValueError, ["given ['a', 'c', 'b'], its own ['a', 'b', 'c']", "Distributions.align()"]),
    "device unknown": (lambda m, t: gen(m.named, ROWS, device="gpu7x"), fo.OptionError, ValueError,
        ["device='gpu7x' is not known; known are auto, cpu, cuda, cuda:N"]),
    "no device": (lambda m, t: gen(m.named, ROWS, device=[]), fo.OptionError, ValueError,
        ["device=[] names no device: text like 'cpu' or 'cuda:1', or a list of such, was expected"]),
    "tpu": (lambda m, t: gen(m.named, ROWS, device="tpu"), fo.DeviceError, RuntimeError,
        ["ONNX Runtime does not run on TPUs"]),
    "tf32 on the CPU": (lambda m, t: gen(m.named, ROWS, device="cpu", precision="tf32"), fo.DeviceError, RuntimeError,
        ["precision='tf32' was asked for on the CPU, which has no TF32; say precision='float32'"]),
    "batch size 0": (lambda m, t: gen(m.named, ROWS, batch_size=0), fo.OptionError, ValueError,
        ["batch_size=0 is not usable: an integer of at least 1 was expected"]),
    "half a batch": (lambda m, t: gen(m.named, ROWS, batch_size=2.5), fo.OptionError, ValueError,
        ["batch_size=2.5 is not usable"]),
    "runner": (lambda m, t: gen(m.named, ROWS, runner="fast"), fo.OptionError, ValueError,
        ["runner='fast' is not a choice; the choices are 'auto', 'onnx', 'native'"]),
    "precision": (lambda m, t: gen(m.named, ROWS, precision="int4"), fo.OptionError, ValueError, ["precision='int4' is not"]),
    "on_error": (lambda m, t: gen(m.named, ROWS, on_error="ignore"), fo.OptionError, ValueError,
        ["on_error='ignore' is not a choice; the choices are 'fail', 'skip', 'record'"]),
    "temperature": (lambda m, t: gen(m.named, ROWS, temperature=0), fo.OptionError, ValueError,
        ["temperature=0 is not usable: a finite number above 0 was expected"]),
    "temperature of said probabilities": (lambda m, t: gen(m.named, ROWS, temperature=2, output="probs"), fo.OptionError,
        ValueError, ["temperature=2 has no meaning for output='probs'"]),
    "output": (lambda m, t: gen(m.named, ROWS, output="scores"), fo.OptionError, ValueError,
        ["output='scores' is not a choice; the choices are 'auto', 'logits'"]),
    "framework": (lambda m, t: gen(m.linear, ROWS, framework="caffe"), fo.OptionError, ValueError,
        ["framework='caffe' is not known; known are 'jax', 'keras', 'sklearn', 'torch'"]),
    "limit": (lambda m, t: gen(m.named, ROWS, limit=-1), fo.OptionError, ValueError, ["limit=-1 is not usable"]),
    "timeout": (lambda m, t: gen(m.named, ROWS, timeout_s=0), fo.OptionError, ValueError, ["seconds above 0 were expected"]),
    "workers": (lambda m, t: gen(m.named, ROWS, num_workers=-1), fo.OptionError, ValueError, ["num_workers=-1 is not usable"]),
    "opset too old": (lambda m, t: fo.export(m.linear, ROWS, t / "x.onnx", opset=3), fo.OptionError, ValueError,
        ["opset=3 is not usable: an integer of at least 13"]),
    "opset of the future": (lambda m, t: fo.export(m.linear, ROWS, t / "x.onnx", opset=99), fo.ExportError, RuntimeError,
        ["opset=99 was asked for, and torch.onnx.export gives"]),
    "tolerance": (lambda m, t: fo.export(m.linear, ROWS, t / "x.onnx", tolerance=0), fo.OptionError, ValueError,
        ["tolerance=0 is not usable: a total variation in (0, 1] was expected"]),
    "rows to verify": (lambda m, t: fo.verify(m.named, m.linear, ROWS, rows=0), fo.OptionError, ValueError,
        ["rows=0 is not usable"]),
    "resume what": (lambda m, t: gen(m.named, ROWS, resume=True), fo.OptionError, ValueError,
        ["resume=True continues the run in out=, so that it needs out="]),
}  # fmt: skip

TARGETS: dict[str, Case] = {
    "unknown suffix": (lambda m, t: gen(m.named, ROWS, out=t / "a.csv"), fo.StoreError, ValueError,
        ["no format has the suffix '.csv'; the suffixes are .json, .parquet, .npz, .npy, .safetensors"]),
    "existing": (lambda m, t: gen(m.named, ROWS, out=t / "a.json") and gen(m.named, ROWS, out=t / "a.json"), StoreExistsError,
        FileExistsError, ["it is there already. Replace it with overwrite=True, or choose another name"]),
    "no folder": (lambda m, t: gen(m.named, ROWS, out=t / "no" / "a.json"), StoreNotFoundError, FileNotFoundError,
        ["is not there; make it first"]),
    "a file for a folder": (lambda m, t: (t / "f").write_text("x") and gen(m.named, ROWS, out=t / "f" / "a.json"),
        fo.StoreError, ValueError, ["f"]),
    "export to an existing file": (lambda m, t: fo.export(m.linear, ROWS, m.named.path), fo.ModelError, ValueError,
        ["it exists already. Say overwrite=True (--overwrite), or choose another name"]),
    "export to another suffix": (lambda m, t: fo.export(m.linear, ROWS, t / "x.pb"), fo.ModelError, ValueError,
        ["a path that ends in .onnx was expected"]),
    "export to no folder": (lambda m, t: fo.export(m.linear, ROWS, t / "no" / "x.onnx"), fo.ModelError, ValueError,
        ["the folder", "does not exist. Make it first"]),
    "export of an ONNX file": (lambda m, t: fo.export(m.plain, ROWS, t / "x.onnx"), fo.ModelError, ValueError,
        ["plain.onnx is an ONNX file already; generate() and verify() take it as it is"]),
}  # fmt: skip

CASES = {f"{room}: {name}": case for room, cases in (
    ("output", OUTPUTS), ("model", MODELS), ("data", DATA), ("option", OPTIONS), ("target", TARGETS),
) for name, case in cases.items()}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_goes_wrong_is_said(name: str, m: Models, tmp_path: Path) -> None:
    action, kind, builtin, texts = CASES[name]

    with pytest.raises(FoOnnxError) as caught:
        action(m, tmp_path)

    message = str(caught.value)
    assert isinstance(caught.value, kind), type(caught.value)
    assert isinstance(caught.value, builtin)
    for text in texts:
        assert text in message, message
    assert "fo-onnx-" not in message, "a temporary folder says nothing to anybody"
    assert not list(tmp_path.glob("*.partial"))
    if "export" in name or "example" in name:
        assert not list(tmp_path.glob("*.onnx")), "a failed export leaves nothing behind"


@pytest.mark.skipif(GPU_HERE, reason="needs a machine without CUDA")
def test_cuda_on_a_machine_without_it(m: Models) -> None:
    for model in (m.named, m.linear):
        with pytest.raises(fo.DeviceError, match="device='cuda' was asked for, but") as caught:
            fo.generate(model, ROWS, device="cuda")
        assert "CUDA" in str(caught.value) or "fo-onnx[gpu]" in str(caught.value), "names what is missing"
        assert "device='cpu'" in str(caught.value), "and says what to do"
        assert isinstance(caught.value, RuntimeError)
    with pytest.raises(fo.DeviceError, match=r"device='cuda:0' was asked for, but torch .* has only cpu"):
        fo.generate(m.linear, ROWS, device="cuda", runner="native")


def test_verify_against_another_model_is_a_report(m: Models) -> None:
    torch.manual_seed(1)
    other = fo.verify(m.named, nn.Linear(5, 3), ROWS)
    wider = fo.verify(m.named, nn.Linear(5, 4), ROWS)

    assert not other.passed
    assert "rows differ by a total variation of up to" in other.verdict()
    assert not wider.passed
    assert "distributions of shape (20, 3), and the original gives (20, 4); is it of another model?" in wider.verdict()


def test_a_row_that_cannot_be_read(m: Models, tmp_path: Path) -> None:
    data = Failing()

    with pytest.raises(
        fo.DataError, match=r"row 1000 \(id 1000\): OSError: the disk did not answer\. Mend the row, .*\. The 1000"
    ) as caught:
        fo.generate(m.named, data)

    assert caught.value.position == 1000
    assert isinstance(caught.value.__cause__, OSError)
    finished = caught.value.finished  # type: ignore[attr-defined]
    assert len(finished) == 1000
    data.mend()
    whole = fo.generate(m.named, data)
    assert finished.probs.tobytes() == whole.probs[:1000].tobytes()


@pytest.mark.parametrize("suffix", [".parquet", ".json", ".npz", ""])
def test_resuming_after_the_row_is_mended(m: Models, tmp_path: Path, suffix: str) -> None:
    data, out = Failing(), tmp_path / f"rows{suffix}"

    with pytest.raises(fo.DataError, match=r"row 1000 .* The 1000 finished rows are kept in .*resume=True") as caught:
        fo.generate(m.named, data, out=out)
    kept = tmp_path / f"rows{suffix}.partial" if suffix else out
    assert str(kept) in str(caught.value)
    assert kept.is_dir()
    assert out.exists() == (not suffix)

    data.mend()
    resumed = fo.generate(m.named, data, out=out, resume=True)

    uninterrupted = fo.generate(m.named, data, out=tmp_path / f"whole{suffix}")
    assert len(resumed) == 2000
    assert resumed.equals(uninterrupted)
    assert resumed.meta["engine"]["batch_size"] == uninterrupted.meta["engine"]["batch_size"]
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("at", [0, 3])
def test_a_row_at_the_beginning_that_cannot_be_read(m: Models, at: int) -> None:
    with pytest.raises(fo.DataError, match=rf"row {at} \(id {at}\): OSError: the disk did not answer"):
        fo.generate(m.linear, Failing(at))
    skipped = fo.generate(m.linear, Failing(at), on_error="skip")
    assert len(skipped) == 1999
    assert at not in skipped


class TestNanRows:
    rows = np.where(np.isin(np.arange(20), [3, 11])[:, None] & (np.arange(5) == 2), np.float32(np.nan), ROWS)

    @pytest.mark.parametrize("runner", ["onnx", "native"])
    def test_fail(self, m: Models, runner: str) -> None:
        with pytest.raises(fo.DataError, match=r"row 3 \(id 'r3'\): .* there is NaN in its input '0'. Mend") as caught:
            fo.generate(m.linear, self.rows, ids=[f"r{i}" for i in range(20)], runner=runner)

        assert caught.value.position == 3
        assert "on_error='skip' or on_error='record'" in str(caught.value)
        assert list(caught.value.finished) == ["r0", "r1", "r2"]  # type: ignore[attr-defined]

    @pytest.mark.parametrize("runner", ["onnx", "native"])
    def test_skip(self, m: Models, runner: str) -> None:
        found = fo.generate(m.linear, self.rows, runner=runner, on_error="skip", batch_size=4, labels=[1] * 20)

        clean = fo.generate(m.linear, ROWS, runner=runner, batch_size=4)
        assert list(found) == [i for i in range(20) if i not in (3, 11)]
        assert found.meta["rows"] == {"written": 18, "skipped": 2, "quarantined": 0}
        assert found.labels is not None
        assert len(found.labels) == 18
        np.testing.assert_allclose(found.probs, np.delete(clean.probs, [3, 11], axis=0), atol=1e-6)

    def test_record(self, m: Models, tmp_path: Path) -> None:
        import json

        out = tmp_path / "rows.parquet"
        found = fo.generate(m.named, self.rows, on_error="record", out=out)

        assert found.meta["rows"] == {"written": 18, "skipped": 0, "quarantined": 2}
        lines = [json.loads(line) for line in (tmp_path / "rows.parquet.errors.jsonl").read_text().splitlines()]
        assert [line["id"] for line in lines] == [3, 11]
        assert all("there is NaN in its input '0'" in line["reason"] for line in lines)

    def test_too_many(self, m: Models) -> None:
        with pytest.raises(
            fo.DataError, match=r"2 rows could not be read or run, and max_errors=1; .* row 11 \(id 11\)"
        ):
            fo.generate(m.named, self.rows, on_error="skip", max_errors=1, batch_size=4)

    def test_infinity(self, m: Models) -> None:
        rows = ROWS.copy()
        rows[5, 0] = np.inf
        with pytest.raises(fo.DataError, match=r"row 5 \(id 5\): .* there is infinity in its input '0'"):
            fo.generate(m.named, rows)


class TestEmptyData:
    @pytest.mark.parametrize("suffix", [None, ".parquet", ".json", ".npz", ".npy", ".safetensors", ""])
    def test_a_file(self, m: Models, tmp_path: Path, suffix: str | None) -> None:
        out = None if suffix is None else tmp_path / f"rows{suffix}"

        found = fo.generate(m.named, ROWS[:0], out=out)

        assert len(found) == 0
        assert found.probs.shape == (0, 3)
        assert found.probs.dtype == np.float32
        if suffix != ".npy":
            assert found.class_names == ("a", "b", "c")
            assert found.meta["rows"] == {"written": 0, "skipped": 0, "quarantined": 0}
        if out is not None:
            assert fo.load(out).probs.shape == (0, 3)

    def test_a_module(self, m: Models, tmp_path: Path) -> None:
        assert fo.generate(m.linear, ROWS[:0], out=tmp_path / "a.parquet").probs.shape == (0, 3)
        assert fo.generate(m.linear, []).classes in (0, 3)
        assert len(fo.generate(m.linear, iter([]))) == 0
        assert fo.generate(m.linear, ROWS, limit=0).probs.shape == (0, 3)
        assert fo.generate(m.linear, [], class_names=["a", "b", "c"]).probs.shape == (0, 3)


def refuse(monkeypatch: pytest.MonkeyPatch, code: int, after: int = 0) -> None:
    """Lets the disk refuse to write, from the `after`-th write on."""
    written = 0

    def write(descriptor: int, data: memoryview) -> int:
        nonlocal written
        written += 1
        if written > after:
            raise OSError(code, os.strerror(code))
        return os.write(descriptor, data)

    monkeypatch.setattr(files.operations, "write", write)


@pytest.mark.parametrize("after", [0, 2, 4])
@pytest.mark.parametrize("suffix", [".parquet", ".json", ".npz"])
def test_a_full_disk(m: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, after: int) -> None:
    out = tmp_path / f"rows{suffix}"
    with monkeypatch.context() as patch:
        refuse(patch, errno.ENOSPC, after)
        with pytest.raises(
            StoreWriteError, match=r"failed at .*: No space left on device\. Free space on that disk"
        ) as caught:
            fo.generate(m.named, ROWS, out=out)
    assert isinstance(caught.value, OSError)
    assert caught.value.errno == errno.ENOSPC
    assert not out.exists(), "no half file"

    found = fo.generate(m.named, ROWS, out=out, resume=True)

    assert found.equals(fo.generate(m.named, ROWS, out=tmp_path / f"whole{suffix}"))


def test_export_to_a_full_disk(m: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, errno.ENOSPC)
    with pytest.raises(StoreWriteError, match="No space left on device"):
        fo.export(m.linear, ROWS, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="rights are other there")
def test_a_place_where_one_may_not_write(m: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):  # the superuser may write anywhere
        refuse(monkeypatch, errno.EACCES)
        monkeypatch.setattr(files.operations, "make_folder", _no_right)
    try:
        with pytest.raises(StoreWriteError, match=r"Permission denied\. Choose a place where you may write") as caught:
            fo.generate(m.named, ROWS, out=folder / "rows.parquet")
    finally:
        folder.chmod(0o700)
    assert isinstance(caught.value, OSError)
    assert caught.value.errno == errno.EACCES


def _no_right(folder: Path) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
