"""A framework's model to an ONNX file with its head, and the comparison of the two."""

from __future__ import annotations

import datetime
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import head
from ..errors import (
    DataError,
    ExportError,
    FoOnnxError,
    ModelError,
    OutputError,
    ParityError,
    PluginError,
    RunError,
    StoreError,
)
from ..model import OnnxModel, describe, raw_output_info
from ..model_file import load_proto
from ..options import ModelOptions, OutputOptions
from ..probabilities import check_raw_shape
from ..protocols import Exporter, Inputs, RawModel
from ..run_control import current
from ..spec import ModelSpec
from ..store import files
from .cache import ExportCache
from .decide import check_class_names, class_count, decide

if TYPE_CHECKING:
    import onnx

log = logging.getLogger("fo_onnx.engine")
Result = TypeVar("Result")
CHANNELS = (1, 3, 4)
_CHANNELS_REFUSED = re.compile(r"channel|depth|axis|axes|dimension|shape", re.IGNORECASE)
EXAMPLE_ROWS = 3
"""Rows that a converter traces with: few, and not one, since tracers take an axis of one for a constant."""


def convert(
    exporter: Exporter,
    model: Any,
    example: Inputs,
    path: Path,
    *,
    raw_example: NDArray[Any],
    model_options: ModelOptions,
    output: OutputOptions,
    cached: Cached | None = None,
) -> OnnxModel:
    """Exports `model` to `path`, decides what its output means, and fuses the head.

    Args:
        exporter: The framework's.
        model: The model.
        example: The first rows of the data.
        path: Where the file goes; its folder is the caller's to clean up.
        raw_example: What the model itself gives for `example`.
        model_options: How it is exported.
        output: What its output means.
        cached: Where an export of the same model may be taken from, and is kept.

    Raises:
        ExportError: It could not be converted.
        OutputError: Its output is no distribution.
    """
    try:
        spec = export_raw(exporter, model, example, path, model_options, output, cached).spec
        proto = load_proto(path)
        told = head.told_by_graph(proto, spec.output.name) if output.output == "auto" else None
    except (ExportError, OutputError, PluginError):
        raise
    except FoOnnxError as err:
        raise ExportError(f"the exported file cannot be used: {err}") from err
    spec = decided(spec, raw_example, output, told)
    provenance = {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "output_name": output.output_name,
        "versions": exporter.versions(),
    }
    found = fuse_head(proto, OnnxModel(path, spec, provenance))
    files.write_bytes(path, proto.SerializeToString())
    return replace(found, sha256=OnnxModel.open(path).sha256)


@dataclass
class Cached:
    """Where an export is looked for and kept.

    Attributes:
        cache: The cache.
        key: The entry.
        folder: Where a new export is kept aside until it has been compared.
        fresh: Whether the entry is not to be taken, because it was tried and is another model's.
        hit: Whether it was taken.
        made: What was exported instead, as it was before its head was fused.
    """

    cache: ExportCache
    key: str
    folder: Path
    fresh: bool = False
    hit: bool = False
    made: tuple[Path, ModelSpec] | None = None

    @property
    def how(self) -> str:
        """How the export came to be, for the record."""
        return "cached" if self.hit else "new"

    def fetch(self, path: Path) -> ModelSpec | None:
        """Copies the entry to `path`, where there is one that may be taken."""
        spec = None if self.fresh else self.cache.fetch(self.key, path)
        self.hit = spec is not None
        return spec

    def aside(self, path: Path, spec: ModelSpec) -> None:
        """Keeps a new export aside, before a head is fused into the file at `path`."""
        if self.cache.limit_bytes:
            raw = self.folder / f"raw-{path.name}"
            try:
                files.copy(path, raw)
            except StoreError as err:
                log.warning("an export could not be kept aside for the cache: %s", err)
            else:
                self.made = (raw, spec)

    def commit(self) -> None:
        """Puts a new export into the cache: it was compared, and is the same as the model."""
        if self.made is not None:
            with current().calling("keeping its export in the cache"):
                self.cache.keep(self.key, *self.made)


def converted_or_anew(cached: Cached, converted: Callable[[Cached], Result]) -> Result:
    """What `converted` makes of a cached export, or of a new one where that is damaged or another model's.

    Args:
        cached: The entry.
        converted: Converts, opens and compares; raises where the result is not the same as the model.
    """
    try:
        found = converted(cached)
    except (ExportError, ModelError, ParityError, RunError) as err:
        if not cached.hit:
            raise
        log.info("the cached export %s is thrown away, and the model is exported anew: %s", cached.key, err)
        cached.cache.drop(cached.key)
        cached = replace(cached, fresh=True, hit=False)
        found = converted(cached)
    cached.commit()
    return found


def export_raw(
    exporter: Exporter,
    model: Any,
    example: Inputs,
    path: Path,
    model_options: ModelOptions,
    output: OutputOptions,
    cached: Cached | None = None,
) -> OnnxModel:
    """Exports `model` without a head: its raw output is the file's only one."""
    control = current()
    with control.calling("the copy of its cached export"):
        kept = spec = None if cached is None else cached.fetch(path)
    if spec is None:
        traced = {k: _at_least(v[:EXAMPLE_ROWS], 2) for k, v in example.items()}
        with control.calling("its export"):
            spec = exporter.export(model, traced, path, model_options, output)
        control.check("after the export")
    found = OnnxModel.open(path)
    fixed = [str(i) for i in found.spec.inputs if i.shape[:1] != (None,)]
    if fixed:
        raise ExportError(
            f"the export of {spec.name} has a fixed batch size ({'; '.join(fixed)}); its code depends on the batch's size."
        )
    if cached is not None and kept is None:
        cached.aside(path, spec)
    return replace(found, spec=replace(spec, name=model_options.model_name or spec.name))


def decided(spec: ModelSpec, raw: NDArray[Any], output: OutputOptions, told: Any = None) -> ModelSpec:
    """`spec` with the decision on the output filled in: its meaning, the classes, their names, the temperature."""
    check_raw_shape(raw.shape, None, len(raw), spec.name)
    kind = decide(raw, output, told, spec.name)
    spec = replace(spec, output_kind=kind, classes=class_count(kind, raw.shape), temperature=float(output.temperature))
    return replace(spec, class_names=check_class_names(output.class_names, spec))


def fuse_head(proto: onnx.ModelProto, model: OnnxModel) -> OnnxModel:
    """Gives `proto` the head that the spec of `model` asks for, instead of one it may have, and writes the spec into it."""
    spec = model.spec
    assert spec.output_kind is not None
    assert spec.classes is not None
    head.remove(proto, raw_output_info(proto, spec))
    probs, logits = head.fuse(proto, spec.output.name, spec.output_kind, spec.temperature, spec.classes)
    model = replace(model, probs_output=probs, logits_output=logits)
    describe(proto, model)
    return model


def native_example(raw: RawModel, example: Inputs, output: OutputOptions, size: int | None = None) -> NDArray[Any]:
    """The original's raw output for the first rows, checked to be one row per sample.

    Args:
        raw: The original.
        example: The first rows.
        output: What its output means. With an ``output_transform``, which takes care of any output, only one batch is run.
        size: The batch size to run them at; all at once where it is not given.

    Raises:
        DataError: The model does not take the rows.
        OutputError: It gives something else than one row per sample, and no ``output_transform`` takes care of that.
    """
    rows = len(next(iter(example.values())))
    size = size or max(rows, 1)
    parts = []
    for start in range(0, max(rows, 1), size):
        part = {k: v[start : start + size] for k, v in example.items()}
        parts.append(_forwarded(raw, part, output))
        if output.output_transform is not None:
            return parts[0]
    if len({part.shape[1:] for part in parts}) > 1:
        shapes = ", ".join(str(part.shape) for part in parts)
        raise OutputError(
            f"{raw.spec.name} gives outputs of shapes {shapes} for batches of its first rows; one row of as many class scores for "
            "each was expected."
        )
    return np.concatenate(parts)


def _forwarded(raw: RawModel, example: Inputs, output: OutputOptions) -> NDArray[Any]:
    try:
        out = raw.forward(example)
    except RunError as err:
        found = ", ".join(f"{k}: {a.dtype} {a.shape[1:]}" for k, a in example.items())
        advice = next(
            filter(None, (_channel_order(array, str(err)) for array in example.values())),
            "Check their axes (channels first or last, a missing axis) and their dtype, or say which part of a sample is "
            "the input with input_getter=.",
        )
        raise DataError(
            f"the model does not take the data: {str(err).rstrip('.')}. Rows of the data are {found}. {advice}",
        ) from err
    if output.output_transform is None:
        rows = len(next(iter(example.values())))
        check_raw_shape(out.shape, None, rows, raw.spec.name)
        if out.dtype.kind in "iub" and out.size == rows:
            raise OutputError(
                f"{raw.spec.name} gives one {out.dtype} number per sample, as a predicted class is; class scores, shape (n, "
                "classes), were expected. Leave out the argmax, or choose another output with output_name=."
            )
    return out


def _channel_order(array: NDArray[Any], refused: str) -> str | None:
    """What to say of images whose channels are first or last where the model, by what it says, wants them the other way round."""
    if array.ndim != 4 or not _CHANNELS_REFUSED.search(refused):
        return None
    first, last = array.shape[1] in CHANNELS, array.shape[3] in CHANNELS
    if first == last:
        return None
    found, other, axes = ("first, NCHW", "last", "1, 2, 0") if first else ("last, NHWC", "first", "2, 0, 1")
    return (
        f"They look like images with their channels {found}. If the model takes them {other}, transpose them with "
        f"transform=lambda x: x.transpose({axes}); if not, check their dtype."
    )


def _at_least(array: NDArray[Any], rows: int) -> NDArray[Any]:
    return array if len(array) >= rows else np.repeat(array, rows, axis=0)
