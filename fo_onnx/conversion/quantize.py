"""Files in int8: a copy of a float32 graph whose layers compute in integers, calibrated on rows of the data.

Static, by ONNX Runtime's own tool, with one scale per output channel of a weight and fixed scales of activations. Dynamic
scales are left out: they are taken over a whole batch, so that a row would depend on the rows beside it.

The last layer stays in float32: the rounding of logits alone took small nets past a total variation of 0.01 (0.024
against 0.004 at the 99th percentile, a convolutional net trained on digits). So does softmax, and every normalisation. The rounding of
early layers counts most, and these are the least quick in integers: a first layer of three channels took 0.7 of its speed in
float32. Hence the variants that leave the first layer (``int8-edges``) or a share of the layers from the input on
in float32 (`FLOAT_SHARES`).

What lies between layers costs accuracy too: of a transformer of three layers the 99th percentile was 0.013 whole, and 0.006 with
only its layers in int8 (``int8-layers``), which ran 1.6 times as fast as float32 instead of 1.9 times. Weights alone in int8
(MatMulNBits) ran at 0.9 of float32 there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ..contracts.batch import Inputs, cut_inputs, pad_rows
from ..contracts.options import FLOAT_SHARES, SIGNED
from ..control.run_control import current
from ..errors import ExportError, FoOnnxError, first_line
from ..models import graph_head
from ..models.onnx_model import LoadedOnnx, load_onnx, raw_output_info
from ..plugin_kit.quiet import quiet
from ..runtime.inputs import InputBinder
from ..runtime.session import runtime
from .cache import ExportCache
from .heads import add_head

if TYPE_CHECKING:
    import onnx

log = logging.getLogger("fo_onnx.engine")
SLOWER_OPTIMIZERS = ("QDQPropagationTransformer",)
"""It moves the first rounding in front of a max-pool that is in float32, which then runs in integers: a net of two convolutions
took 889 µs for 16 images instead of 191 (onnxruntime 1.32)."""
LARGEST_BYTES = 1 << 31
"""Graphs with their weights are protobufs, which hold no more."""
CALIBRATED_BATCH = 16
_WARNING, _FATAL = 2, 4
"""Severities of ONNX Runtime's log; the first is its default."""
Feed = dict[str, NDArray[Any]]
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_PASSING = ("Relu", "Clip", "MaxPool")
"""Behind a layer in float32 these stay in float32, too, in one fused kernel with it."""
_QUANTIZED = (
    *_LAYERS, *_PASSING, "Add", "AveragePool", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu", "Mul", "Pad", "Reshape",
    "Resize", "Sigmoid", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip


def quantize(loaded: LoadedOnnx, name: str, calibration: Inputs, folder: Path) -> LoadedOnnx:
    """Return a copy of a file in int8, from the cache if it was made of the same graph and the same rows before.

    Args:
        loaded: The file, with its head if it has one; it stays as it is.
        name: One of `FLOAT_SHARES`, or with `SIGNED` behind it.
        calibration: Rows that the ranges of the activations are measured on.
        folder: A temporary folder, for the files.

    Raises:
        ExportError: It cannot be quantised; says why.
    """
    if loaded.size_bytes >= LARGEST_BYTES:
        raise ExportError(f"its {loaded.size_bytes / 1e9:.1f} GB are more than a quantised file can hold (2 GB)")
    spec, path = loaded.model.spec, folder / f"{name}.onnx"
    proto = _without_head(loaded)
    cache, key = ExportCache.of_user(), _key_of(proto, name, calibration)
    with current().calling("the copy of its quantised file"):
        is_cached = cache.fetch(key, path) is not None
    if not is_cached:
        with current().calling(f"its quantisation ({name})"), _naming_failures():
            _write_quantized(proto, name, _batches(loaded, calibration), path)
    quantized = load_onnx(path, spec=spec)
    if not is_cached:
        if not any(node.op_type == "QuantizeLinear" for node in quantized.proto.graph.node):
            raise ExportError("none of its layers can be quantised")
        with current().calling("keeping its quantised file in the cache"):
            cache.keep(key, path, spec)
    return quantized if loaded.model.probs_output is None else add_head(quantized, spec)


def _without_head(loaded: LoadedOnnx) -> onnx.ModelProto:
    """Return a copy of the graph without its head, with its external data."""
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(loaded.proto)
    graph_head.remove(proto, raw_output_info(proto, loaded.model.spec))
    del proto.metadata_props[:]  # of the file that it was
    with _naming_failures():
        onnx.load_external_data_for_model(proto, str(loaded.model.path.parent))
    # Layers are left out by name.
    for number, node in enumerate(proto.graph.node):
        node.name = f"node_{number}"
    return proto


def _write_quantized(proto: onnx.ModelProto, name: str, batches: Iterator[Feed], path: Path) -> None:
    import onnx

    ort = runtime()
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # It advises through the root logger, and its sessions log as the process does.
    ort.set_default_logger_severity(_FATAL)
    try:
        with (
            quiet("onnxruntime", "root", level=logging.CRITICAL),
            tempfile.TemporaryDirectory(dir=path.parent) as folder,
        ):
            # From a file: a graph in memory loses its weights to another one that is gone by then (onnxruntime 1.32).
            plain, prepared = Path(folder) / "plain.onnx", Path(folder) / "prepared.onnx"
            onnx.save_model(proto, plain)
            # Symbolic shapes need another package (sympy); classifiers do without them.
            quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
            types = quantization.QuantType
            quantization.quantize_static(
                str(prepared),
                str(path),
                _reader(quantization, batches),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=types.QInt8 if name.endswith(SIGNED) else types.QUInt8,
                weight_type=types.QInt8,
                op_types_to_quantize=list(_LAYERS if name.startswith("int8-layers") else _QUANTIZED),
                nodes_to_exclude=float_nodes(onnx.load(prepared), name.removesuffix(SIGNED)),
                extra_options={"MatMulConstBOnly": True},
            )
    finally:
        ort.set_default_logger_severity(_WARNING)


def float_nodes(proto: onnx.ModelProto, variant: str) -> list[str]:
    """Return the names of the nodes that stay in float32.

    These are the last layers, behind which there is no other, and, from the input on, the first layers or a share of all of
    them, with whatever is computed before the deepest of these.

    Args:
        proto: A graph whose nodes have names and are in the order of computation.
        variant: One of `FLOAT_SHARES`.
    """
    nodes, weights = list(proto.graph.node), {t.name for t in proto.graph.initializer}
    layers = [i for i, n in enumerate(nodes) if n.op_type in _LAYERS and any(name in weights for name in n.input)]
    # The first layers have none before them, and the last ones none behind them.
    behind: set[str] = set()
    before: set[str] = set()
    first, floats = set(), set()
    for number, node in enumerate(nodes):
        is_behind = not behind.isdisjoint(node.input)
        if number in layers and not is_behind:
            first.add(number)
        if number in layers or is_behind:
            behind.update(node.output)
    for number, node in reversed(list(enumerate(nodes))):
        is_before = not before.isdisjoint(node.output)
        if number in layers and not is_before:
            floats.add(number)
        if number in layers or is_before:
            before.update(node.input)
    share = int(len(layers) * FLOAT_SHARES[variant])
    if share:
        floats.update(range(layers[share - 1] + 1))
    elif variant == "int8-edges":
        floats |= first
    # What is fused with a layer, or pools it.
    users: dict[str, list[int]] = {}
    for number, node in enumerate(nodes):
        for name in node.input:
            users.setdefault(name, []).append(number)
    for number in sorted(floats):
        following = users.get(nodes[number].output[0], [])
        while len(following) == 1 and nodes[following[0]].op_type in _PASSING:
            floats.add(following[0])
            following = users.get(nodes[following[0]].output[0], [])
    return [nodes[number].name for number in sorted(floats)]


def _reader(quantization: Any, batches: Iterator[Feed]) -> Any:
    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Feed | None:
            return next(batches, None)

    return Reader()


def _batches(loaded: LoadedOnnx, rows: Inputs) -> Iterator[Feed]:
    """Yield rows as the graph takes them; whole batches, if their size is built into it."""
    spec = loaded.model.spec
    feed, fixed = InputBinder(spec).bind(rows), spec.fixed_batch
    for batch in cut_inputs(feed, fixed or CALIBRATED_BATCH):
        yield {name: pad_rows(array, fixed or 0) for name, array in batch.items()}


def _key_of(proto: onnx.ModelProto, name: str, calibration: Inputs) -> str:
    """Return the digest of everything that a quantised file depends on."""
    import onnx

    digest = hashlib.sha256(proto.SerializeToString(deterministic=True))
    digest.update(json.dumps([name, onnx.__version__, runtime().__version__]).encode())
    digest.update(digest_rows(calibration))
    return digest.hexdigest()[:40]


def digest_rows(inputs: Inputs) -> bytes:
    """Return the digest of rows: of their names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for name, array in inputs.items():
        digest.update(json.dumps([name, str(array.dtype), list(array.shape)]).encode())
        digest.update(array.tobytes() if array.dtype.kind != "O" else repr(array.tolist()).encode())
    return digest.digest()


@contextlib.contextmanager
def _naming_failures() -> Iterator[None]:
    """Turn what the tools raise into an `ExportError`: they raise anything, from KeyError to onnxruntime's own errors."""
    try:
        yield
    except FoOnnxError:
        raise
    except Exception as err:
        raise ExportError(f"quantising it failed: {first_line(err)}") from err
