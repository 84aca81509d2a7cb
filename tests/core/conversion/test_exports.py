"""Exports appear whole, replace nothing that is not theirs, and say when the file is not what was compared."""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from kills import survives
from onnx import numpy_helper
from onnx_files import CLASSES, FEATURES, WEIGHTS, linear, rows

import fo_onnx as fo
from fo_onnx.contracts.parity_report import ParityReport
from fo_onnx.contracts.spec import ModelSpec, TensorSpec
from fo_onnx.conversion.publish import export_path
from fo_onnx.conversion.publish import publish as publish_export
from fo_onnx.models import graph_head as head
from fo_onnx.models.onnx_model import CHANGED, METADATA_KEY, NEVER_TIED, OnnxModel, describe, load_onnx

REPORT = ParityReport("torch, native, on cpu", 20, (20, 1), 1e-8, 1e-8, 1e-9, 1e-12, 0, 1e-4, 0.5, True)
NAMES = ("a", "b", "c", "d")


def made(folder: Path, weights: np.ndarray = WEIGHTS, *, external: bool = True, temperature: float = 1.0) -> OnnxModel:
    """What `convert` leaves in a temporary folder: a file with its head, here with external data."""
    folder.mkdir(exist_ok=True)
    path = linear(folder / "made.onnx", weights=weights)
    proto = onnx.load(path)
    spec = ModelSpec(
        (TensorSpec("x", "float32", (None, FEATURES)),), TensorSpec("z", "float32", (None, CLASSES)), "logits", CLASSES,
        NAMES, temperature, "net", "torch",
    )  # fmt: skip
    probs, logits = head.fuse(proto, "z", "logits", temperature, CLASSES)
    describe(proto, OnnxModel(path, spec, {"created": "now"}, "", probs, logits))
    (folder / "made.onnx.data").unlink(missing_ok=True)
    onnx.save(proto, path, save_as_external_data=external, location="made.onnx.data", size_threshold=90)
    return OnnxModel.open(path)


def publish(model: OnnxModel, target: Path, report: ParityReport | None) -> OnnxModel:
    parity = None if report is None else report.to_dict()
    return publish_export(load_onnx(model.path), target, {**model.provenance, "parity": parity})


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


@pytest.mark.parametrize("external", [True, False])
def test_what_was_compared_is_believed(here, tmp_path, external):
    model = publish(made(tmp_path / "made", external=external), here / "net.onnx", REPORT)

    assert model.provenance["parity"] == REPORT.to_dict()
    meta = fo.generate(here / "net.onnx", rows(20), progress=False).meta
    assert (meta["parity"]["passed"], meta["parity"]["unknown"], meta["parity"]["measured"]) == (
        True,
        None,
        "at export",
    )
    names = [re.sub(r"[0-9a-f]{16}", "…", p.name) for p in sorted(here.iterdir())]
    assert names == (["net.onnx", "net.onnx.….data"] if external else ["net.onnx"])


def edited(path: Path, edit: Any) -> None:
    proto = onnx.load(path, load_external_data=False)
    edit(proto)
    path.write_bytes(proto.SerializeToString())


def metadata(change: Any) -> Any:
    def edit(proto: onnx.ModelProto) -> None:
        entry = next(p for p in proto.metadata_props if p.key == METADATA_KEY)
        known = json.loads(entry.value)
        change(known)
        entry.value = json.dumps(known)

    return lambda path: edited(path, edit)


def flip_data(path: Path) -> None:
    (data,) = path.parent.glob("*.data")
    flipped = bytearray(data.read_bytes())
    flipped[50] ^= 1
    data.write_bytes(flipped)


def another_node(path: Path) -> None:
    def edit(proto: onnx.ModelProto) -> None:
        cast = proto.graph.node[1]
        cast.op_type = "Neg"
        cast.ClearField("attribute")

    edited(path, edit)


CHANGES = {
    "a bit of the data": flip_data,
    "a node": another_node,
    "class names": metadata(lambda known: known["spec"].update(class_names=list("bacd"))),
    "the temperature": metadata(lambda known: known["spec"].update(temperature=2.0)),
    "the comparison": metadata(lambda known: known["provenance"]["parity"].update(max_tv=0.0)),
    "the digest": metadata(lambda known: known.update(compared="0" * 64)),
    "the model's name": metadata(lambda known: known["spec"].update(name="another")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changed_says_that_its_parity_is_unknown(here, tmp_path, caplog, change):
    path = here / "net.onnx"
    publish(made(tmp_path / "made"), path, REPORT)
    CHANGES[change](path)

    model = OnnxModel.open(path)
    assert model.provenance["parity"]["passed"] is None
    assert model.provenance["parity"]["unknown"] == CHANGED
    parity = fo.generate(path, rows(20), progress=False).meta["parity"]
    assert (parity["passed"], parity["unknown"]) == (None, CHANGED)
    assert caplog.text.count(f"{path}: its parity is unknown, since {CHANGED}") == 1
    assert "fo_onnx.verify compares" in caplog.text


def test_a_file_that_was_never_tied_to_its_comparison(here, tmp_path):
    path = here / "net.onnx"
    publish(made(tmp_path / "made"), path, REPORT)
    metadata(lambda known: known.pop("compared"))(path)
    assert OnnxModel.open(path).provenance["parity"]["unknown"] == NEVER_TIED


def test_inspect_says_it(here, tmp_path):
    from click.testing import CliRunner

    from fo_onnx.cli.inspect import command

    path = here / "net.onnx"
    publish(made(tmp_path / "made"), path, REPORT)
    assert "passed: max total variation 1.0e-08" in CliRunner().invoke(command, [str(path)]).output
    flip_data(path)
    assert f"unknown: {CHANGED}" in CliRunner().invoke(command, [str(path)]).output


def test_another_head_than_the_one_that_was_compared(here, tmp_path):
    path = here / "net.onnx"
    publish(made(tmp_path / "made"), path, REPORT)
    for options in ({"temperature": 2.0}, {"output_transform": lambda z: np.abs(z) / np.abs(z).sum(1, keepdims=True)}):
        parity = fo.generate(path, rows(20), progress=False, **options).meta["parity"]
        assert parity["passed"] is None
        assert "compared" in parity["unknown"]
    assert fo.generate(path, rows(20), progress=False, temperature=1.0, output="logits").meta["parity"]["passed"]


def test_other_names_and_a_copy_are_the_same_file(here, tmp_path):
    """A user may call the pair otherwise, and other tools may write the protobuf anew."""
    path = here / "net.onnx"
    publish(made(tmp_path / "made"), path, REPORT)
    (data,) = here.glob("*.data")
    data.rename(here / "weights.bin")

    def renamed(proto: onnx.ModelProto) -> None:
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = "weights.bin"

    edited(path, renamed)
    assert OnnxModel.open(path.rename(here / "other.onnx")).provenance["parity"]["passed"]


# -------------------------------------------------------------------------------------------------------- as a pair


def test_the_data_of_the_model_before_go_after_it(here, tmp_path):
    target = here / "net.onnx"
    publish(made(tmp_path / "old"), target, None)
    foreign = {
        "net.onnx.data": b"somebody's",
        "net.onnx.0123456789abcdef.data": b"called so, and of another content",
        "other.onnx.0123456789abcdef.data": b"another model's",
    }
    for name, text in foreign.items():
        (here / name).write_bytes(text)
    publish(made(tmp_path / "new", -WEIGHTS), target, None)

    found = content(here)
    assert {name: found.pop(name) for name in foreign} == foreign
    assert len(found) == 2
    np.testing.assert_allclose(fo.generate(target, rows(5)).probs.argmax(1), (rows(5) @ -WEIGHTS).argmax(1))


@pytest.mark.parametrize("same", [False, True], ids=["other weights", "the same weights"])
def test_a_kill_leaves_the_old_pair_or_the_new_one(here, tmp_path, same):
    old = made(tmp_path / "old")
    new = made(tmp_path / "new", WEIGHTS if same else -WEIGHTS, temperature=2.0)
    target, x = here / "net.onnx", rows(9)
    publish(old, target, REPORT)
    right = {m.spec.temperature: fo.generate(m, x, progress=False).probs for m in (old, new)}
    ends = set()
    for step in itertools.count():
        survived = survives(step, lambda: publish(new, target, REPORT))
        dists = fo.generate(target, x, progress=False)
        temperature = dists.meta["model"]["temperature"]
        np.testing.assert_array_equal(dists.probs, right[temperature])
        assert dists.meta["parity"]["passed"]
        ends.add(temperature)
        # The next export to this name removes what the kill left.
        publish(old, target, REPORT)
        assert len(content(here)) == 2, sorted(content(here))
        if survived:
            break
    assert step > 10
    assert ends == {1.0, 2.0}


# ------------------------------------------------------------------------------------------------ what is not replaced


def a_foreign_model(path: Path) -> None:
    linear(path)


def a_text(path: Path) -> None:
    path.write_text("my thesis")


def a_folder(path: Path) -> None:
    path.mkdir()
    (path / "x").touch()


def a_link(path: Path) -> None:
    (path.parent / "elsewhere.onnx").write_text("my thesis")
    path.symlink_to("elsewhere.onnx")


def a_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere.onnx")


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("there", [a_foreign_model, a_text, a_folder, a_link, a_dangling_link, a_pipe])
def test_what_is_not_an_export_is_not_replaced(here, tmp_path, there):
    there(here / "net.onnx")
    names = sorted(p.name for p in here.rglob("*"))

    # Also without overwrite=True, which would be no way out.
    for overwrite in (True, False):
        with pytest.raises(fo.StoreError, match=r"Exporting at .*net\.onnx: .* is there.*hoose another name"):
            export_path(here / "net.onnx", "net", overwrite=overwrite)
    with pytest.raises(fo.StoreError, match=r"Exporting at .*net\.onnx: .* is there"):
        publish(made(tmp_path / "made", external=False), here / "net.onnx", None)
    assert sorted(p.name for p in here.rglob("*")) == names


def test_data_of_others_under_the_name_that_is_needed(here, tmp_path):
    model = made(tmp_path / "made")
    publish(model, here / "net.onnx", None)
    (data,) = here.glob("*.data")
    (here / "net.onnx").unlink()
    data.write_bytes(b"somebody's")
    with pytest.raises(fo.StoreError, match=rf"{data.name}: a file is there that fo-onnx did not write"):
        publish(model, here / "net.onnx", None)
    assert content(here) == {data.name: b"somebody's"}


def test_a_folder_of_somebody_where_the_file_is_begun(here, tmp_path):
    (here / "net.onnx.partial").mkdir()
    (here / "net.onnx.partial" / "mine").touch()
    with pytest.raises(fo.StoreError, match=r"net\.onnx\.partial is needed, but"):
        publish(made(tmp_path / "made"), here / "net.onnx", None)
    assert [p.name for p in here.rglob("*")] == ["net.onnx.partial", "mine"]


def test_an_export_whose_data_are_gone_can_be_replaced(here, tmp_path):
    target = here / "net.onnx"
    publish(made(tmp_path / "old"), target, None)
    (data,) = here.glob("*.data")
    data.unlink()
    assert export_path(target, "net", overwrite=True) == target
    publish(made(tmp_path / "new", -WEIGHTS), target, None)
    assert len(content(here)) == 2


def test_two_tensors_of_equal_data_in_two_files(tmp_path, here):
    path = linear(tmp_path / "made.onnx")
    proto = onnx.load(path)
    proto.graph.initializer.append(numpy_helper.from_array(WEIGHTS, "again"))
    onnx.save(proto, path, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=90)
    model = publish(OnnxModel.open(path), here / "net.onnx", REPORT)
    assert model.provenance["parity"]["passed"]
    assert len(content(here)) == 2
