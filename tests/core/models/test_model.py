"""Model files: what is known of them travels inside, and comes back as it was."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_files import CLASSES, expected, linear, node, rows

import fo_onnx as fo
from fo_onnx.contracts.spec import ModelSpec, TensorSpec
from fo_onnx.distributions.probabilities import total_variation
from fo_onnx.errors import ModelError
from fo_onnx.models import graph_head as head
from fo_onnx.models.onnx_file import load_proto
from fo_onnx.models.onnx_model import METADATA_KEY, describe
from fo_onnx.plugin_kit.graph_checks import tensor_spec


def ours(folder, kind="logits", temperature=1.0, names=None):
    """A file with head and metadata, as an export leaves it."""
    path = linear(folder / "ours.onnx")
    proto = onnx.load(path)
    spec = ModelSpec(
        (TensorSpec("x", "float32", (None, 6)),), TensorSpec("z", "float32", (None, 4)), kind, CLASSES, names, temperature,
        "ours", "torch",
    )  # fmt: skip
    probs, logits = head.fuse(proto, "z", kind, temperature, CLASSES)
    describe(proto, fo.OnnxModel(path, spec, {"made": "here"}, "", probs, logits))
    onnx.save(proto, path)
    return path


def test_a_spec_comes_back_from_its_dictionary():
    spec = ModelSpec(
        (TensorSpec("x", "float32", (None, 3, None)), TensorSpec("m", "int64", (4,))), TensorSpec("z", "float16", (None, 2)),
        "probs", 2, ("a", "b"), 1.5, "net", "torch",
    )  # fmt: skip
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert spec.fixed_batch == 4
    assert spec.signature.ranks == (3, 1)
    assert str(spec.inputs[0]) == "x: float32 (n, 3, ?)"


def test_what_is_known_is_in_the_file(tmp_path):
    model = fo.OnnxModel.open(ours(tmp_path, temperature=2.0, names=("a", "b", "c", "d")))
    assert (model.spec.output_kind, model.spec.temperature, model.spec.class_names) == (
        "logits",
        2.0,
        ("a", "b", "c", "d"),
    )
    assert (model.probs_output, model.logits_output) == ("probs", "logits")
    assert model.provenance == {"made": "here"}
    assert len(model.sha256) == 64


def test_the_head_in_the_file_is_used(tmp_path):
    x = rows(50)
    dists = fo.generate(ours(tmp_path, temperature=2.0), x)
    assert total_variation(dists.probs, expected(x, 2.0)).max() < 1e-6
    assert dists.meta["model"]["temperature"] == 2.0


def test_another_temperature_replaces_the_one_in_the_file(tmp_path):
    x = rows(50)
    dists = fo.generate(ours(tmp_path, temperature=2.0), x, temperature=3.0, keep_logits=True)
    assert total_variation(dists.probs, expected(x, 3.0)).max() < 1e-6
    assert dists.meta["model"]["temperature"] == 3.0


def test_an_output_transform_sees_the_raw_output_of_our_files_too(tmp_path):
    x, seen = rows(20), []

    def transform(raw):
        seen.append(raw.copy())
        return np.eye(4, dtype=np.float32)[raw.argmax(axis=1)]

    dists = fo.generate(ours(tmp_path), x, output_transform=transform)
    assert (dists.probs.argmax(axis=1) == expected(x).argmax(axis=1)).all()
    # Not distributions, which the head in the file would give.
    assert all(np.abs(r.sum(axis=1) - 1).max() > 0.01 for r in seen)


def test_other_class_names_than_the_files_are_refused(tmp_path):
    path = ours(tmp_path, names=("a", "b", "c", "d"))
    assert fo.generate(path, rows(3), class_names=["a", "b", "c", "d"]).class_names == ("a", "b", "c", "d")
    with pytest.raises(fo.OptionError, match=r"given \['b', 'a', 'c', 'd'\], its own \['a', 'b', 'c', 'd'\].*align"):
        fo.generate(path, rows(3), class_names=["b", "a", "c", "d"])


def test_labels_by_name_find_their_columns(tmp_path):
    path = ours(tmp_path, names=("cat", "dog", "ant", "bee"))
    dists = fo.generate(path, rows(3), labels=["bee", "cat", "ant"])
    assert dists.labels.tolist() == [3, 0, 2]
    with pytest.raises(fo.DataError, match=r"the data has the class\(es\) 'cow', which the model has not"):
        fo.generate(path, rows(3), labels=["bee", "cow", "ant"])


def test_a_file_of_a_newer_version_is_refused(tmp_path):
    path = ours(tmp_path)
    proto = onnx.load(path)
    entry = next(p for p in proto.metadata_props if p.key == METADATA_KEY)
    entry.value = json.dumps(json.loads(entry.value) | {"version": 99})
    onnx.save(proto, path)
    with pytest.raises(ModelError, match="written by a newer fo-onnx .*version 99.*Upgrade fo-onnx"):
        fo.OnnxModel.open(path)
    entry.value = "{"
    onnx.save(proto, path)
    with pytest.raises(ModelError, match="its fo-onnx metadata is damaged"):
        fo.OnnxModel.open(path)


def test_metadata_that_lacks_its_spec(tmp_path):
    path = ours(tmp_path)
    proto = onnx.load(path)
    next(p for p in proto.metadata_props if p.key == METADATA_KEY).value = '{"version": 1}'
    onnx.save(proto, path)
    with pytest.raises(ModelError, match="its fo-onnx metadata is damaged"):
        fo.OnnxModel.open(path)


def test_metadata_of_another_tensor(tmp_path):
    path = ours(tmp_path)
    proto = onnx.load(path)
    entry = next(p for p in proto.metadata_props if p.key == METADATA_KEY)
    entry.value = json.dumps(json.loads(entry.value) | {"probs_output": "a\n" * 1000})
    onnx.save(proto, path)
    with pytest.raises(ModelError) as caught:
        fo.OnnxModel.open(path)
    shown = repr("a\n" * 1000)[:100]
    assert f"it has the tensor {shown}: of any type (n, 4), and the graph has ['logits', 'probs']" in str(caught.value)


def test_another_meaning_keeps_the_temperature_of_the_file(tmp_path):
    x = rows(50)
    dists = fo.generate(ours(tmp_path, kind="log_probs", temperature=2.0), x, output="logits")
    assert total_variation(dists.probs, expected(x, 2.0)).max() < 1e-6


def test_text_labels_need_a_model_that_names_its_columns(tmp_path):
    with pytest.raises(fo.DataError, match=r"names of 4 classes .* does not name its 4, .* class_names="):
        fo.generate(ours(tmp_path), rows(4), labels=["a", "b", "c", "d"])
    named = fo.generate(ours(tmp_path), rows(4), labels=["a", "b", "c", "d"], class_names=["d", "c", "b", "a"])
    assert named.labels.tolist() == [3, 2, 1, 0]


def test_a_file_without_shapes_of_its_outputs(tmp_path):
    path = linear(tmp_path / "m.onnx")
    proto = onnx.load(path)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(proto, path)
    x = rows(30)
    assert total_variation(fo.generate(path, x).probs, expected(x)).max() < 1e-6


def test_shapes_and_types_of_tensors():
    value = onnx.helper.make_tensor_value_info("t", TensorProto.FLOAT16, ["n", 3, None])
    assert tensor_spec(value) == TensorSpec("t", "float16", (None, 3, None))
    assert tensor_spec(onnx.helper.make_tensor_value_info("t", TensorProto.STRING, [1])).dtype == ""


def with_external_data(folder, location="weights.bin"):
    path = linear(folder / "m.onnx", node("Identity", ["z"], ["y"]), output="y")
    proto = onnx.load(path)
    onnx.save(proto, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def test_external_data_beside_the_model(tmp_path):
    path = with_external_data(tmp_path)
    x = rows(30)
    assert total_variation(fo.generate(path, x).probs, expected(x)).max() < 1e-6
    before = fo.OnnxModel.open(path).sha256
    data = bytearray((tmp_path / "weights.bin").read_bytes())
    data[3] ^= 1
    (tmp_path / "weights.bin").write_bytes(data)
    assert fo.OnnxModel.open(path).sha256 != before


def test_external_data_that_is_missing_or_elsewhere(tmp_path):
    (tmp_path / "inside").mkdir()
    path = with_external_data(tmp_path / "inside")
    data = path.parent / "weights.bin"
    content = data.read_bytes()
    data.unlink()
    with pytest.raises(ModelError, match="external data 'weights.bin' is missing. Copy it beside the model"):
        load_proto(path)
    outside = tmp_path / "secret.bin"
    outside.write_bytes(content)
    data.symlink_to(outside)
    with pytest.raises(ModelError, match="lies outside the model's folder, or is a link"):
        load_proto(path)
    data.unlink()
    data.hardlink_to(outside)
    with pytest.raises(ModelError, match="is a hard link"):
        load_proto(path)
    proto = onnx.load_model(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../secret.bin"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match=r"external data '../secret.bin' lies outside the model's folder"):
        load_proto(path)
