"""OnnxModel: a model file with its spec and provenance, ours or anybody's.

What fo-onnx knows of a file that it exported (class names, what the output means, the parity) is kept in the file's own
metadata under the key ``fo_onnx``. A foreign file has none, and is described from its graph alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ModelError, ModelNotFoundError, OutputError
from .probabilities import check_raw_shape
from .spec import ModelSpec, TensorSpec

if TYPE_CHECKING:
    import onnx

METADATA_KEY = "fo_onnx"
METADATA_VERSION = 1
_CLASSES_OF = "fo_onnx.classes_of."
_FLOATS = ("float16", "float32", "float64", "bfloat16")


@dataclass(frozen=True)
class OnnxModel:
    """A classifier in an ONNX file.

    Attributes:
        path: The file.
        spec: Its inputs, its raw output and what that means.
        provenance: What it was exported from, with which versions, and how it compared; empty for foreign files.
        sha256: Digest of the file and of its external data.
        probs_output: Name of the graph's output with distributions; ``None`` where no head is fused.
        logits_output: Name of the graph's output with logits, where there is one beside the distributions.
    """

    path: Path
    spec: ModelSpec
    provenance: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    probs_output: str | None = None
    logits_output: str | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, output_name: str | None = None) -> OnnxModel:
        """Opens and checks a file without running it.

        Args:
            path: An ``.onnx`` file.
            output_name: Which output is meant where the model has several.

        Raises:
            ModelNotFoundError: No file there, or its external data is missing.
            ModelError: Truncated, not ONNX, external data outside the model's folder, or several outputs.
            OutputError: An output that cannot be one row of class scores per sample.
        """
        path = Path(path)
        proto = load_proto(path)
        _check(proto, path)
        known = _metadata(proto, path)
        digest = _sha256(path, proto)
        if known is not None:
            spec = known["spec"]
            if output_name not in (None, spec.output.name):
                raise ModelError(
                    f"{path} was exported with the output {spec.output.name!r} only; export it again with "
                    f"output_name={output_name!r}."
                )
            return cls(
                path, spec, known.get("provenance", {}), digest, known.get("probs_output"), known.get("logits_output")
            )
        return cls(path, _foreign_spec(proto, path, output_name), {}, digest)

    def described(self, **changes: Any) -> OnnxModel:
        """A copy of this description with fields of the spec changed; the file stays as it is."""
        return replace(self, spec=replace(self.spec, **changes))


def load_proto(path: Path) -> onnx.ModelProto:
    """The protobuf of a model file, without its external data, of which it is checked that it may be read."""
    import onnx
    from google.protobuf.message import DecodeError

    if path.is_dir() or not path.exists():
        what = "a folder" if path.is_dir() else "nothing"
        raise ModelNotFoundError(f"opening the model {path}: found {what}; an .onnx file was expected.")
    try:
        proto = onnx.load_model(path, load_external_data=False)
    except (DecodeError, OSError, ValueError) as err:
        raise ModelError(
            f"opening the model {path}: it is no ONNX file, or it is truncated ({err or type(err).__name__}). "
            "Copy or export it again."
        ) from err
    if not proto.graph.output or not proto.graph.node or not proto.opset_import:
        raise ModelError(f"opening the model {path}: it holds no graph with nodes and outputs, so it is no ONNX model.")
    _check_external_data(proto, path)
    _take_maps_off(proto)
    return proto


def _take_maps_off(proto: onnx.ModelProto) -> None:
    """Lets an output that is a sequence of maps from classes to scores be the tensor within, under the output's name.

    skl2onnx and onnxmltools write classifiers so, unless they are told ``zipmap=False`` (ZipMap, ai.onnx.ml). The
    names of the columns are left in the metadata under ``classes_of.<output>``.
    """
    import onnx

    for node in [n for n in proto.graph.node if n.op_type == "ZipMap" and n.domain == "ai.onnx.ml"]:
        outputs = [o for o in proto.graph.output if o.name == node.output[0]]
        labels = [label for a in node.attribute for label in (*a.strings, *a.ints)]
        if not outputs or not labels:
            continue
        scores = onnx.helper.make_node("Cast", node.input, node.output, node.name, to=onnx.TensorProto.FLOAT)
        names = [label.decode() if isinstance(label, bytes) else str(label) for label in labels]
        info = onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, ["batch", len(labels)])
        node.CopyFrom(scores)
        outputs[0].CopyFrom(info)
        if names != [str(i) for i in range(len(names))]:
            proto.metadata_props.add(key=f"{_CLASSES_OF}{info.name}", value=json.dumps(names))


def _mapped_classes(proto: onnx.ModelProto, output: str) -> tuple[str, ...] | None:
    """The names of the columns of an output that was a map."""
    text = next((p.value for p in proto.metadata_props if p.key == _CLASSES_OF + output), None)
    return None if text is None else tuple(json.loads(text))


def _check(proto: onnx.ModelProto, path: Path) -> None:
    """ONNX's own checker."""
    import onnx

    if not all(v.type.tensor_type.HasField("shape") for v in (*proto.graph.input, *proto.graph.output)):
        # Some converters leave out a shape that they do not know. The checker refuses that; ONNX Runtime, which has the
        # last word on every model, does not.
        return
    try:
        onnx.checker.check_model(path if _external_tensors(proto) else proto)
    except onnx.checker.ValidationError as err:
        raise ModelError(
            f"opening the model {path}: ONNX's checker refuses it: {str(err).strip().splitlines()[0]}"
        ) from err


def describe(proto: onnx.ModelProto, model: OnnxModel) -> None:
    """Writes what is known of `model` into the metadata of `proto`, in place."""
    text = json.dumps(
        {
            "version": METADATA_VERSION,
            "spec": model.spec.to_dict(),
            "provenance": model.provenance,
            "probs_output": model.probs_output,
            "logits_output": model.logits_output,
        }
    )
    kept = [(p.key, p.value) for p in proto.metadata_props if p.key != METADATA_KEY]
    del proto.metadata_props[:]
    for key, value in [*kept, (METADATA_KEY, text)]:
        proto.metadata_props.add(key=key, value=value)


def external_files(proto: onnx.ModelProto, folder: Path) -> list[Path]:
    """The files of external data that a model in `folder` needs, each once, in order of first use."""
    return list(dict.fromkeys(folder / location for location in _locations(proto)))


def rename_external_data(proto: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Lets a model find its external data under other names: `names` has the new one by the old one."""
    for tensor in _external_tensors(proto):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = names.get(entry.value, entry.value)


def raw_output_info(proto: onnx.ModelProto, spec: ModelSpec) -> onnx.ValueInfoProto:
    """The raw output of `spec` as the protobuf's own description of a graph output."""
    import onnx

    info: onnx.ValueInfoProto
    for info in proto.graph.output:
        if info.name == spec.output.name:
            return info
    dtype = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(spec.output.dtype))
    shape = ["batch" if d is None and i == 0 else d for i, d in enumerate(spec.output.shape)]
    info = onnx.helper.make_tensor_value_info(spec.output.name, dtype, shape)
    return info


def tensor_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    """A graph's input or output as a `TensorSpec`; an unknown shape is ``()``, an unusable type ``""``."""
    import onnx

    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or tensor.elem_type == onnx.TensorProto.STRING:
        return TensorSpec(value.name, "", ())
    dtype = str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
    return TensorSpec(value.name, dtype, tuple(d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim))


def graph_inputs(proto: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """The inputs that a caller must feed: those that no initializer fills."""
    filled = {t.name for t in proto.graph.initializer}
    return tuple(tensor_spec(v) for v in proto.graph.input if v.name not in filled)


def _foreign_spec(proto: onnx.ModelProto, path: Path, output_name: str | None) -> ModelSpec:
    inputs = graph_inputs(proto)
    unusable = [i.name for i in inputs if not i.dtype]
    if unusable or not inputs:
        what = f"the input {unusable[0]!r} is no numeric tensor" if unusable else "it takes no input"
        raise ModelError(f"opening the model {path}: {what}; a classifier over numeric tensors was expected.")
    output = _choose_output([tensor_spec(v) for v in proto.graph.output], path, output_name)
    if output.dtype not in _FLOATS:
        raise OutputError(
            f"opening the model {path}: its output {output.name!r} is of type {output.dtype or 'text or sequence'}; class "
            "scores as floating-point numbers were expected. Choose another output with output_name=."
        )
    if output.shape:
        check_raw_shape(output.shape, None, None, f"the model {path}")
    last = output.shape[-1] if len(output.shape) == 2 else None
    classes = 2 if len(output.shape) == 1 or last == 1 else last
    names = _mapped_classes(proto, output.name)
    return ModelSpec(inputs=inputs, output=output, classes=classes, class_names=names, name=path.stem)


def _choose_output(outputs: list[TensorSpec], path: Path, name: str | None) -> TensorSpec:
    names = [o.name for o in outputs]
    if name is not None:
        if name not in names:
            raise ModelError(f"opening the model {path}: it has no output {name!r}; its outputs are {names}.")
        return outputs[names.index(name)]
    # Beside the scores, classifiers of skl2onnx give the predicted class: integers, or text.
    scores = [o for o in outputs if o.dtype in _FLOATS]
    if len(outputs) == 1 or (len(scores) == 1 and len(outputs) == 2):
        return (scores or outputs)[0]
    raise ModelError(f"opening the model {path}: it has several outputs, {names}; say which one with output_name=.")


def _metadata(proto: onnx.ModelProto, path: Path) -> dict[str, Any] | None:
    text = next((p.value for p in proto.metadata_props if p.key == METADATA_KEY), None)
    if text is None:
        return None
    try:
        known: dict[str, Any] = json.loads(text)
        version = int(known["version"])
        if version <= METADATA_VERSION:
            known["spec"] = ModelSpec.from_dict(known["spec"])
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise ModelError(
            f"opening the model {path}: its fo-onnx metadata is damaged ({err}). Export it again."
        ) from err
    if version > METADATA_VERSION:
        raise ModelError(
            f"opening the model {path}: it was written by a newer fo-onnx (metadata version {version}; this one reads up "
            f"to {METADATA_VERSION}). Upgrade fo-onnx."
        )
    return known


def _external_tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    import onnx

    return [
        t for t in onnx.external_data_helper._get_all_tensors(proto) if t.data_location == onnx.TensorProto.EXTERNAL
    ]


def _locations(proto: onnx.ModelProto) -> Iterator[str]:
    for tensor in _external_tensors(proto):
        yield next((e.value for e in tensor.external_data if e.key == "location"), "")


def _check_external_data(proto: onnx.ModelProto, path: Path) -> None:
    """Refuses external data that is missing or that lies outside the model's folder.

    ONNX Runtime loads hard links and followed links of older versions without a word; onnx's own loader refuses them
    since onnx 1.21, and so does this.
    """
    folder = path.parent.resolve()
    for location in dict.fromkeys(_locations(proto)):
        file = path.parent / location
        inside = bool(location) and not os.path.isabs(location) and file.resolve().is_relative_to(folder)
        if not inside or file.is_symlink():
            raise ModelError(
                f"opening the model {path}: its external data {location!r} lies outside the model's folder, or is a link "
                "there; such a file could make any file of this machine be read. Put the data beside the model."
            )
        if not file.is_file():
            raise ModelNotFoundError(
                f"opening the model {path}: its external data {location!r} is missing. Copy it beside the model."
            )
        if file.stat().st_nlink > 1:
            raise ModelError(
                f"opening the model {path}: its external data {location!r} is a hard link, which could lead outside the "
                "model's folder. Copy the data beside the model."
            )


def _sha256(path: Path, proto: onnx.ModelProto) -> str:
    digest = hashlib.sha256()
    for file in [path, *external_files(proto, path.parent)]:
        with open(file, "rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
