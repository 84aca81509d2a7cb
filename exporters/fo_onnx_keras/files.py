"""Keras and TensorFlow models and weights in files; one that would run code when it is read needs the user's word."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fo_onnx.errors import ModelError, ModelNotFoundError, TrustError
from fo_onnx.plugin_kit.quiet import quiet

from .detect import is_layer, is_trackable
from .interface import DEFAULT_SIGNATURE, entry_point, require_usable
from .messages import first_cause, require

_SAVED_MODEL = "saved_model.pb"
_UNSAFE_OPERATORS = re.compile(
    r"(Matching|Read|Write)Files?|PrintV2|LoadAndRemapMatrix|GenerateVocabRemapping|MergeV2Checkpoints|ShardedFilespec|DumpTensor"
    r"|Save(Slices|V2)?|(DTensor)?Restore(Slice|V2)?|CalibrationStatisticsSaver|FileSystemSetConfiguration|RecordInput"
    r"|CreateSummary(File|Db)Writer|Write\w*Summary|ImportEvent|Debug(Identity|NumericSummary|NanCount)\w*"
    r"|(Experimental)?(TextLine|TFRecord|FixedLengthRecord|Sql|CSV|LMDB|Save|Load|Cache|MatchingFiles|DataService)Dataset\w*"
    r"|(Experimental)?DatasetToTFRecord|(List)?Snapshot\w*|DistributedSave|RegisterDataset\w*|Rpc\w*"
    r"|(WholeFile|TextLine|TFRecord|FixedLengthRecord|LMDB)Reader\w*|ImmutableConst|Skipgram|FixedUnigramCandidateSampler"
    r"|DatasetFromGraph"
)
"""TensorFlow operators that read or write files wherever they like (TensorFlow's SECURITY.md: models are programs).

The last one runs a graph that is a string, in which there may be any of them.
"""
_SAVER_OPERATORS = frozenset(
    {"SaveV2", "RestoreV2", "MergeV2Checkpoints", "Save", "SaveSlices", "Restore", "RestoreSlice"}
)
"""Those of them that every SavedModel has, in the functions that save and restore its variables."""
_SAVER_FUNCTION = re.compile(r"__inference_(_traced_(?:save|restore))_\d+")
_SAVER_ATTRIBUTES = frozenset({"_input_shapes", "_construction_context"})
"""These functions and their attributes, as tf.saved_model.save names them."""
_PYTHON_OPERATORS = ("PyFunc", "PyFuncStateless", "EagerPyFunc")
_UNKNOWN_CLASS = re.compile(
    r"Could not (?:locate|deserialize) (?:class|function)? ?'([^']+)'|Unknown (?:layer|object): '([^']+)'"
)
_WEIGHT_SUFFIXES = (".h5", ".hdf5", ".keras", ".safetensors")
_OPT_IN = "say trust=True (--trust-pickle on the command line)"


def load(path: Path, *, trust: bool) -> Any:
    """Return the model in a ``.keras`` file (in safe mode unless trusted), an ``.h5`` file, or a SavedModel folder.

    Raises:
        TrustError: Reading it would run code, and `trust` is false; nothing of it has run.
        ModelError: It is damaged, holds weights only, or needs classes that are not known here.
    """
    if not path.exists():
        raise ModelNotFoundError(f"opening {path}: there is no such file or folder.")
    if path.is_dir():
        require("tensorflow", f"opening the SavedModel {path}")
        return _load_saved_model(path, trust)
    require("keras", f"opening {path}")
    if path.suffix.lower() == ".keras":
        return _load_keras(path, trust)
    # A file of weights is named as such, whether it is trusted or not.
    _require_h5_model(path)
    if not trust:
        raise TrustError(
            f"{path} is a model in HDF5, which Keras reads without its safe mode: layers in it can hold code, and reading it runs "
            f"that. If you trust where it came from, {_OPT_IN}. Safer: save the model as .keras."
        )
    return _read(path, safe=False)


def load_weights(model: Any, path: Path) -> None:
    """Fill `model` with the weights in a ``.weights.h5``, ``.keras`` or safetensors file, without running code.

    In a safetensors file each weight goes by its path in the model (``"dense/kernel"``). A model keeps the weights that
    it had where those of the file do not fit.

    Raises:
        ModelError: The file holds no weights, or others than the model has.
    """
    if not path.is_file():
        raise ModelNotFoundError(f"opening the weights {path}: there is no such file.")
    if not is_layer(model):
        raise ModelError(
            f"filling weights from {path} into a {type(model).__name__}: only Keras models take weights from files here; restore "
            "others with tf.train.Checkpoint."
        )
    if path.suffix.lower() not in _WEIGHT_SUFFIXES:
        raise ModelError(f"{path} is no file of weights: {', '.join(_WEIGHT_SUFFIXES)} were expected.")
    require_usable(model)
    before = [w.numpy() for w in model.weights]
    try:
        if path.suffix.lower() == ".safetensors":
            _assign(model, _read_safetensors(path), path)
        else:
            with quiet():  # of warnings of files without the state of a training
                model.load_weights(path)
    except ModelError:
        raise
    except Exception as err:
        # Keras fills in what fits before it raises.
        for weight, value in zip(model.weights, before, strict=True):
            weight.assign(value)
        raise ModelError(
            f"the weights in {path} cannot be filled into the model {model.name}: {first_cause(err)}. The model has "
            f"{_shorten([f'{w.path} {tuple(w.shape)}' for w in model.weights])}."
        ) from err


def _load_keras(path: Path, trust: bool) -> Any:
    if not zipfile.is_zipfile(path):
        raise ModelError(
            f"{path} is no .keras file, or is truncated: a zip archive as model.save writes it was expected."
        )
    with zipfile.ZipFile(path) as archive:
        if "config.json" not in archive.namelist():
            raise ModelError(f"{path} is an archive without config.json, so it is no .keras file.")
    return _read(path, safe=not trust)


def _read(path: Path, *, safe: bool) -> Any:
    import keras

    try:
        with quiet():
            # Not compiled: a loss or an optimizer of the user's own need not be known here.
            return keras.saving.load_model(path, compile=False, safe_mode=safe)
    except Exception as err:
        # Keras gives no types to tell these apart by (keras.src.saving.serialization_lib and keras.layers.Lambda).
        text = str(err)
        if safe and ("safe_mode" in text or "unsafe" in text.lower()):
            raise TrustError(
                f"{path} holds code (a Lambda layer, or the like), and reading it would run that: {first_cause(err)}. If you trust "
                f"where the file came from, {_OPT_IN}. Safer: make a layer of the code, and register its class."
            ) from err
        version = _keras_version(path)
        if version.startswith("2."):
            raise ModelError(
                f"{path} was written by Keras {version}, and Keras {keras.__version__} cannot read it: {first_cause(err)}. Read it with "
                "tf_keras, which is Keras 2 (pip install tf_keras), and give what tf_keras.models.load_model(path) returns as the model."
            ) from err
        unknown = _UNKNOWN_CLASS.search(text)
        if unknown is not None:
            raise ModelError(
                f"{path} holds a {next(filter(None, unknown.groups()))!r}, which is not known here: decorate the class with "
                "@keras.saving.register_keras_serializable() and import its module before the file is opened, or give the model as "
                "package.module:attribute with --weights."
            ) from err
        raise ModelError(f"reading the Keras model in {path} failed: {first_cause(err)}") from err


def _keras_version(path: Path) -> str:
    """Return the version of Keras that wrote a file that was opened before; empty if the file does not say."""
    if path.suffix.lower() == ".keras":
        with zipfile.ZipFile(path) as archive:
            metadata = json.loads(archive.read("metadata.json")) if "metadata.json" in archive.namelist() else {}
        return str(metadata.get("keras_version", "")) if isinstance(metadata, dict) else ""
    import h5py

    with h5py.File(path, "r") as file:
        version = file.attrs.get("keras_version", "")
    return version.decode(errors="replace") if isinstance(version, bytes) else str(version)


def _require_h5_model(path: Path) -> None:
    """Raise a `ModelError` unless `path` is an HDF5 file with a model's configuration. Runs nothing of it."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            names = list(file.attrs)
    except OSError as err:
        raise ModelError(f"{path} is no HDF5 file, or is truncated: {first_cause(err)}") from err
    if "model_config" not in names:
        raise ModelError(
            f"{path} holds weights, not a model: give the model as package.module:attribute and the file with --weights."
        )


def _load_saved_model(path: Path, trust: bool) -> Any:
    operators = _operators(path)
    python = sorted(operators & set(_PYTHON_OPERATORS))
    if python:
        raise ModelError(
            f"the SavedModel {path} calls Python functions ({', '.join(python)}), which are not in it: they are there only in the "
            "process that saved it. Give the model object instead."
        )
    # TensorFlow has no safe mode: a SavedModel is a program, and this is what it could do.
    unsafe = sorted(o for o in operators if _UNSAFE_OPERATORS.fullmatch(o))
    if unsafe and not trust:
        raise TrustError(
            f"the SavedModel {path} reads or writes files when it runs ({', '.join(unsafe)}). If you trust where it came from, {_OPT_IN}."
        )
    import tensorflow as tf

    try:
        model = tf.saved_model.load(str(path))
    except Exception as err:
        raise ModelError(f"reading the SavedModel {path} failed: {first_cause(err)}") from err
    if not is_trackable(model) or not (callable(model) or model.signatures):
        raise ModelError(
            f"the SavedModel {path} has no signature, and cannot be called: nothing says which function is the classifier. Save it "
            "with signatures=."
        )
    entry_point(model)  # raises if several signatures leave open which is meant
    return model


def _operators(path: Path) -> set[str]:
    """Return the operators in a SavedModel, without those of its saver functions; load nothing of it."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    content = saved_model_pb2.SavedModel()
    try:
        content.ParseFromString((path / _SAVED_MODEL).read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{path} is a folder without {_SAVED_MODEL}, so it is no SavedModel.") from None
    except DecodeError as err:
        raise ModelError(f"{path / _SAVED_MODEL} is no SavedModel, or is truncated: {first_cause(err)}") from err
    if not content.meta_graphs:
        raise ModelError(f"{path / _SAVED_MODEL} holds no graph, so it is no SavedModel, or is truncated.")
    if len(content.meta_graphs) > 1 or not content.meta_graphs[0].HasField("object_graph_def"):
        raise ModelError(
            f"the SavedModel {path} was saved by TensorFlow 1, which runs its graph when it is loaded. If you trust where it came "
            f"from, give one of its signatures as the model: tf.saved_model.load(path).signatures[{DEFAULT_SIGNATURE!r}]."
        )
    return _operators_in(content.meta_graphs[0])


def _operators_in(content: Any) -> set[str]:
    """Return the operators of a graph and all its functions, but for those of TensorFlow's own saver functions.

    A function counts whether or not something calls it: TensorFlow puts one with ``api_implements`` in another's place.
    A saver function is left out if it has no such attribute, and if no function, constant, gradient or object of the
    model names it. Nodes of the graph itself do, which TensorFlow 2 does not run.
    """
    library = content.graph_def.library
    text = library.SerializeToString() + content.object_graph_def.SerializeToString()
    # By their names without the number, which another one takes the place of when a function is loaded.
    unnamed = [name for name in ("_traced_save", "_traced_restore") if text.count(name.encode()) == 1]
    operators = {n.op for n in content.graph_def.node}
    for function in library.function:
        saver = _SAVER_FUNCTION.fullmatch(function.signature.name)
        is_saver = saver and saver[1] in unnamed and set(function.attr) <= _SAVER_ATTRIBUTES
        operators |= {n.op for n in function.node_def} - (_SAVER_OPERATORS if is_saver else set())
    return operators


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as err:
        raise ModelError(f"{path} is no safetensors file, or is truncated: {err}") from err


def _assign(model: Any, values: Mapping[str, Any], path: Path) -> None:
    weights = {w.path: w for w in model.weights}
    problems = [
        *(f"{n} is missing" for n in weights if n not in values),
        *(f"{n} is not the model's" for n in values if n not in weights),
        *(
            f"{n} has the shape {values[n].shape} instead of {tuple(w.shape)}"
            for n, w in weights.items()
            if n in values and tuple(values[n].shape) != tuple(w.shape)
        ),
    ]
    if problems:
        raise ModelError(f"the weights in {path} do not fit the model {model.name}: {_shorten(problems)}.")
    # Only now, so that a model whose weights do not fit stays as it was.
    for name, weight in weights.items():
        weight.assign(values[name])


def _shorten(items: list[str]) -> str:
    return ", ".join(items[:6]) + (f" and {len(items) - 6} more" if len(items) > 6 else "")
