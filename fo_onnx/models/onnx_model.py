"""OnnxModel: a model file with its spec and provenance, ours or anybody's.

What fo-onnx knows of a file that it exported (class names, what the output means, the parity) is kept in the file's own
metadata under the key ``fo_onnx``. A foreign file has none, and is described from its graph alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..contracts.parity_report import ParityReport
from ..contracts.spec import ModelSpec, TensorSpec
from ..distributions.probabilities import check_raw_shape
from ..errors import FoOnnxError, ModelError, first_line, reading
from ..plugin_kit.graph_checks import graph_inputs, tensor_spec
from .foreign_file import read_spec
from .onnx_file import DOING, external_files, external_locations, load_proto, parse, rename_external_data

if TYPE_CHECKING:
    import onnx

    from ..fusions.fused_graph import FusedGraph

METADATA_KEY = "fo_onnx"
METADATA_VERSION = 1
CHANGED = "the file changed after it was compared"
NEVER_TIED = "the file does not say what it was when it was compared, as those of older versions do not"


@dataclass(frozen=True)
class OnnxModel:
    """A classifier in an ONNX file.

    Attributes:
        path: The file.
        spec: Its inputs, its raw output and what that means.
        provenance: What it was exported from, with which versions, and how it compared: ``"parity"``, with the reason under
            ``"unknown"`` where that was not this file. Empty for foreign files.
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
        """Open a file without running it. Whether ONNX Runtime runs it shows when it is run.

        Args:
            path: An ``.onnx`` file.
            output_name: Which output is meant where the model has several.

        Raises:
            ModelNotFoundError: No file there, or its external data is missing.
            ModelError: Truncated, not ONNX, external data outside the model's folder, an input whose first axis is not the
                batch, or several outputs.
            OutputError: An output of text, or a sequence.
        """
        return load_onnx(path, output_name=output_name).model

    @property
    def parity(self) -> ParityReport | None:
        """Return how the file compared with its original when it was exported; ``None`` if it was not compared.

        Raises:
            ModelError: The record is damaged.
        """
        record = self.provenance.get("parity")
        if record is None:
            return None
        with reading(self.path, ModelError, "reading the comparison that is recorded in"):
            return ParityReport.from_dict(record)

    def with_spec(self, **changes: Any) -> OnnxModel:
        """Return a copy of this description with fields of the spec changed; the file stays as it is."""
        return replace(self, spec=replace(self.spec, **changes))


@dataclass(frozen=True)
class LoadedOnnx:
    """An ONNX file that was parsed once: what every later step of a run reads instead of the file.

    Attributes:
        model: What is known of it.
        proto: Its graph, without external data. A head is added to it or removed from it in place.
        is_edited: Whether `proto` is other than what the file holds.
        stamps: Time, size and inode of the file and of its external data when they were read.
        fused: What sessions on the CPU run in place of `proto`, if that was found to give the same.
    """

    model: OnnxModel
    proto: onnx.ModelProto
    is_edited: bool = False
    stamps: tuple[tuple[int, int, int], ...] = ()
    fused: FusedGraph | None = None

    @property
    def content(self) -> Path | bytes:
        """Return what a session is opened from: the file, or the bytes of the edited graph."""
        return self.proto.SerializeToString() if self.is_edited else self.model.path

    @property
    def size_bytes(self) -> int:
        """Return the size of the file with its external data."""
        return sum(size for _, size, _ in self.stamps)

    def require_unchanged(self) -> None:
        """Raise a `ModelError` if the file is another one than the one that was parsed."""
        with reading(self.model.path, ModelError, DOING):
            stamps = _stamps(_files(self.model.path, self.proto))
        if self.stamps != stamps:
            raise ModelError(f"{self.model.path} has changed since it was opened; open it again with OnnxModel.open.")


def load_onnx(
    path: str | os.PathLike[str], *, output_name: str | None = None, spec: ModelSpec | None = None
) -> LoadedOnnx:
    """Parse, check and hash a file, once; see `OnnxModel.open` for the errors.

    Args:
        path: An ``.onnx`` file.
        output_name: Which output is meant, if the model has several.
        spec: What the file is, if it was just exported and does not say it itself yet.
    """
    path = Path(path)
    proto = load_proto(path)
    with reading(path, ModelError, DOING):
        files = _files(path, proto)
        metadata = None if spec is not None else _metadata(proto, path)
        stamps = _stamps(files)
        digest, data_sha256 = _digests(files)
        if metadata is None:
            spec = spec or read_spec(proto, path, output_name)
            return LoadedOnnx(OnnxModel(path, spec, {}, digest), proto, True, stamps)
        spec = metadata["spec"]
        if output_name not in (None, spec.output.name):
            raise ModelError(
                f"{path} was exported with the output {spec.output.name!r} only; export it again with "
                f"output_name={output_name!r}."
            )
        provenance = _trusted_provenance(proto, metadata, data_sha256)
        model = OnnxModel(path, spec, provenance, digest, metadata["probs_output"], metadata["logits_output"])
        return LoadedOnnx(model, proto, False, stamps)


def _files(path: Path, proto: onnx.ModelProto) -> list[Path]:
    return [path, *external_files(proto, path.parent)]


def _stamps(files: list[Path]) -> tuple[tuple[int, int, int], ...]:
    states = [file.stat() for file in files]
    return tuple((s.st_mtime_ns, s.st_size, s.st_ino) for s in states)


def describe(proto: onnx.ModelProto, model: OnnxModel, data_sha256: Sequence[str] | None = None) -> None:
    """Write what is known of `model` into the metadata of `proto`, in place.

    Args:
        proto: The model.
        model: What is known of it.
        data_sha256: The digests of its external files, in order of first use. With them, the comparison in the provenance
            is tied to the graph, to these files and to the metadata themselves: it is not believed of any others.
    """
    known = {
        "version": METADATA_VERSION,
        "spec": model.spec.to_dict(),
        "provenance": model.provenance,
        "probs_output": model.probs_output,
        "logits_output": model.logits_output,
    }
    _remove_metadata(proto)
    if data_sha256 is not None:
        known["compared"] = _digest_of_compared(proto, known, data_sha256)
    proto.metadata_props.add(key=METADATA_KEY, value=json.dumps(known))


def is_export(path: Path) -> bool:
    """Return whether a file is an ONNX model with the metadata of fo-onnx; its external data may be missing."""
    try:
        proto = parse(path)
        with reading(path, ModelError, DOING):
            return any(p.key == METADATA_KEY for p in proto.metadata_props)
    except FoOnnxError:
        return False


def _remove_metadata(proto: onnx.ModelProto) -> None:
    others = [(p.key, p.value) for p in proto.metadata_props if p.key != METADATA_KEY]
    del proto.metadata_props[:]
    for key, value in others:
        proto.metadata_props.add(key=key, value=value)


def _digest_of_compared(proto: onnx.ModelProto, known: dict[str, Any], data_sha256: Sequence[str]) -> str:
    """Return the digest of a model without the metadata of fo-onnx, of these metadata, and of its external data.

    The names of external files do not count, so that a model and its data can be given other ones.
    """
    locations = external_locations(proto)
    numbers = [str(i) for i in range(len(locations))]
    said = {key: value for key, value in known.items() if key != "compared"}
    digest = hashlib.sha256(json.dumps([said, list(data_sha256)], sort_keys=True).encode())
    rename_external_data(proto, dict(zip(locations, numbers, strict=True)))
    digest.update(proto.SerializeToString(deterministic=True))
    rename_external_data(proto, dict(zip(numbers, locations, strict=True)))
    return digest.hexdigest()


def _trusted_provenance(proto: onnx.ModelProto, metadata: dict[str, Any], data_sha256: Sequence[str]) -> dict[str, Any]:
    """Return the provenance of a file of ours; its comparison is called unknown if it was another file's."""
    provenance: dict[str, Any] = metadata["provenance"]
    if provenance.get("parity") is None:
        return provenance
    if "compared" not in metadata:
        return without_parity(provenance, NEVER_TIED)
    _remove_metadata(proto)
    as_written = {**metadata, "spec": metadata["spec"].to_dict()}
    same = _digest_of_compared(proto, as_written, data_sha256) == metadata["compared"]
    return provenance if same else without_parity(provenance, CHANGED)


def without_parity(provenance: dict[str, Any], why: str) -> dict[str, Any]:
    """Return a provenance whose comparison says that it is unknown, and why; one without a comparison stays as it is."""
    parity = provenance.get("parity")
    return provenance if parity is None else {**provenance, "parity": {**parity, "passed": None, "unknown": why}}


def raw_output_info(proto: onnx.ModelProto, spec: ModelSpec) -> onnx.ValueInfoProto:
    """Return the raw output of `spec` as the protobuf's own description of a graph output."""
    import onnx

    info: onnx.ValueInfoProto
    for info in proto.graph.output:
        if info.name == spec.output.name:
            return info
    dtype = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(spec.output.dtype))
    shape = ["batch" if d is None and i == 0 else d for i, d in enumerate(spec.output.shape)]
    info = onnx.helper.make_tensor_value_info(spec.output.name, dtype, shape)
    return info


def _metadata(proto: onnx.ModelProto, path: Path) -> dict[str, Any] | None:
    """Return what the file says of itself, every value checked; ``None`` for a file that is not ours."""
    text = next((p.value for p in proto.metadata_props if p.key == METADATA_KEY), None)
    if text is None:
        return None
    try:
        known = {"provenance": {}, "probs_output": None, "logits_output": None, **json.loads(text)}
        version = known["version"]
        if type(version) is not int:
            raise ValueError(f"version is {version!r:.100}; a whole number was expected")
        if version <= METADATA_VERSION:
            known["spec"] = ModelSpec.from_dict(known["spec"])
            _check_provenance(known["provenance"])
            _check_against_graph(proto, known)
            return known
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as err:
        raise ModelError(
            f"{DOING} {path}: its fo-onnx metadata is damaged ({first_line(err)}). Export it again."
        ) from err
    raise ModelError(
        f"{DOING} {path}: it was written by a newer fo-onnx (metadata version {version}; this one reads up "
        f"to {METADATA_VERSION}). Upgrade fo-onnx."
    )


def _check_provenance(provenance: Any) -> None:
    """Raise a `ValueError` for values of another type than an export records."""
    kinds = {"created": str, "output_name": str, "versions": dict, "parity": dict}
    if not isinstance(provenance, dict):
        raise ValueError("its provenance is no table")
    for key, kind in kinds.items():
        if not isinstance(provenance.get(key), kind | None):
            raise ValueError(f"{key} is {provenance[key]!r:.100}; a value of type {kind.__name__} was expected")


def _check_against_graph(proto: onnx.ModelProto, known: dict[str, Any]) -> None:
    """Raise a `ValueError` where the metadata speak of another graph than the one they lie in."""
    spec: ModelSpec = known["spec"]
    heads = [name for name in (known["probs_output"], known["logits_output"]) if name is not None]
    if heads and (known["probs_output"] is None or spec.output_kind is None or spec.classes is None):
        raise ValueError("it has a head, and does not say what it gives")
    inputs = {i.name: i for i in graph_inputs(proto)}
    outputs = {v.name: tensor_spec(v) for v in proto.graph.output}
    if set(inputs) != {i.name for i in spec.inputs}:
        raise ValueError(f"its inputs are {sorted(i.name for i in spec.inputs)}, and the graph has {sorted(inputs)}")
    results = [TensorSpec(name, "", (None, spec.classes)) for name in heads] or [replace(spec.output, dtype="")]
    for tensor, graph in (*((i, inputs) for i in spec.inputs), *((r, outputs) for r in results)):
        own = graph.get(tensor.name)
        if own is None or not _fit(own, tensor):
            there = sorted(graph) if own is None else _show(own)
            raise ValueError(f"it has the tensor {_show(tensor)}, and the graph has {there}")
    if heads and not any(spec.output.name in node.output for node in proto.graph.node):
        raise ValueError(f"no node gives its output {spec.output.name!r:.100}")
    if spec.output_kind is not None and spec.output.shape:
        check_raw_shape(spec.output.shape, spec.output_kind, None, spec.name)


def _show(tensor: TensorSpec) -> str:
    return str(replace(tensor, name=f"{tensor.name!r:.100}", dtype=tensor.dtype or "of any type"))


def _fit(one: TensorSpec, other: TensorSpec) -> bool:
    """Return whether two descriptions can be of one tensor; an unknown dtype is ``""``, an unknown shape ``()``."""
    if one.dtype and other.dtype and one.dtype != other.dtype:
        return False
    if not one.shape or not other.shape:
        return True
    lengths = zip(one.shape, other.shape, strict=False)
    return one.rank == other.rank and all(a is None or b is None or a == b for a, b in lengths)


def _digests(files: list[Path]) -> tuple[str, list[str]]:
    """Return the sha256 of a file with its external data, and that of each external file, reading each once."""
    whole, single = hashlib.sha256(), []
    for file in files:
        digest = hashlib.sha256()
        with open(file, "rb") as stream:
            while chunk := stream.read(1 << 20):
                whole.update(chunk)
                digest.update(chunk)
        single.append(digest.hexdigest())
    return whole.hexdigest(), single[1:]
