"""Damaged .onnx files: bytes changed, cut out, doubled. Each opens and runs, or ends in an error of fo-onnx."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from bounded import run_bounded
from onnx import helper
from onnx_files import CLASSES, linear, node, rows

import fo_onnx as fo
from fo_onnx.contracts.spec import ModelSpec, TensorSpec
from fo_onnx.models import graph_head as head
from fo_onnx.models.onnx_model import describe

X = rows(12)


def seeds(folder: Path) -> list[Path]:
    """A file of ours, a foreign one, and one with functions and external data."""
    own = onnx.load(linear(folder / "own.onnx"))
    spec = ModelSpec(
        (TensorSpec("x", "float32", (None, 6)),), TensorSpec("z", "float32", (None, 4)), "logits", CLASSES, ("a", "b", "c", "d"),
    )  # fmt: skip
    probs, logits = head.fuse(own, "z", "logits", 1.0, CLASSES)
    describe(own, fo.OnnxModel(folder / "own.onnx", spec, {"created": "now"}, "", probs, logits), [])
    onnx.save(own, folder / "own.onnx")
    foreign = linear(folder / "foreign.onnx", node("Softmax", ["z"], ["p"], axis=-1), output="p")
    proto = onnx.load(linear(folder / "external.onnx", helper.make_node("f", ["z"], ["p"], domain="own"), output="p"))
    proto.opset_import.add(domain="own", version=1)
    body = helper.make_function("own", "f", ["a"], ["b"], [node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 18)])
    proto.functions.append(body)
    onnx.save(proto, folder / "external.onnx", save_as_external_data=True, location="data", size_threshold=0)
    return [folder / "own.onnx", foreign, folder / "external.onnx"]


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    data = bytearray(content)
    for _ in range(random.integers(1, 4)):
        at, size = int(random.integers(len(data))), int(random.integers(1, 9))
        match random.integers(4):
            case 0:
                data[at] ^= 1 << int(random.integers(8))
            case 1:
                data[at] = int(random.choice([0, 1, 127, 128, 255]))
            case 2:
                del data[at : at + size]
            case _:
                data[at:at] = data[at : at + size]
        if not data:
            break
    return bytes(data)


def run_all(folder: Path, contents: dict[str, bytes], numbers: range) -> None:
    """Raises for the first file that ends in another error, in a child that may die of it."""
    for number in numbers:
        random = np.random.default_rng(number)
        name = sorted(contents)[number % len(contents)]
        path = folder / f"mutated-{name}"
        path.write_bytes(mutated(contents[name], random))
        (folder / "at").write_text(str(number))
        try:
            fo.generate(path, X, progress=False, device="cpu")
        except fo.FoOnnxError:
            continue
        except Exception as err:
            raise AssertionError(f"number {number}: {type(err).__name__}: {err}") from err


def check(folder: Path, numbers: range, seconds: float) -> None:
    contents = {p.name: p.read_bytes() for p in seeds(folder)}
    outcome = run_bounded(lambda: run_all(folder, contents, numbers), seconds=seconds)
    assert outcome.ended is None, f"number {(folder / 'at').read_text()}: {outcome}"
    assert outcome.error is None, outcome.message
    outcome.require_bounds()


def test_the_files_themselves_run(tmp_path: Path) -> None:
    for path in seeds(tmp_path):
        assert len(fo.generate(path, X, progress=False, device="cpu")) == len(X)


def test_damaged_models(tmp_path: Path) -> None:
    check(tmp_path, range(100), 60)


@pytest.mark.slow
def test_more_damaged_models(tmp_path: Path) -> None:
    check(tmp_path, range(100, 2100), 600)
