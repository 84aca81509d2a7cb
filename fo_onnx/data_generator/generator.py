"""The generator of the guide, whatever the framework: its arguments and methods on one side, the engine on the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .. import api
from ..distributions import Distributions
from ..engine.providers import parse_device
from ..errors import OptionError, OutputError, StoreError
from ..model import OnnxModel
from ..options import ENGINES, choice, positive_int
from ..parity import ParityReport
from ..probabilities import apply_head, check_raw_shape, decide_kind, invalid_rows
from ..spec import OUTPUT_KINDS, OutputKind
from ..store import load, save
from ..store.schema import with_flat_keys
from .pairing import SimpleDataLoader
from .rows import RowDict, distributions_of
from .tensors import NumpyTensors, Tensors, map_tensors

MODES = ("auto", *OUTPUT_KINDS)


@dataclass(frozen=True)
class LastRun:
    """How the rows of a generator's last run came to be.

    Attributes:
        runner: ``"onnx"`` or ``"native"``.
        reason: Why it was not the first choice; ``None`` where it was.
        parity: How the exported model compared with the original; ``None`` where there was nothing to compare.
        output: What the model's output was taken for; ``None`` with an ``output_transform``.
        meta: The whole record, as `docs/spec.md` lists it under "meta".
    """

    runner: str
    reason: str | None
    parity: ParityReport | None
    output: OutputKind | None
    meta: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, meta: dict[str, Any]) -> LastRun:
        """What the record of a run says."""
        parity = meta.get("parity")
        return cls(
            runner=meta["runner"]["kind"],
            reason=meta["runner"]["reason"],
            parity=None if parity is None else ParityReport.from_dict(parity),
            output=meta["model"]["output"],
            meta=meta,
        )


@dataclass(eq=False)
class FirstOrderDataGenerator:
    """Gives one class distribution per sample of a dataset, as a dict from index to row.

    The modules of the frameworks bind it to their tensors. The rows are the engine's: the model is exported to ONNX, compared,
    and run there, or natively with the reason in `last_run`.

    Attributes:
        model: A model of the framework, a callable over its tensors, an `OnnxModel`, or the path of a model's file.
        device: Where the model runs: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"gpu"``, ``"tpu"``, ``"auto"`` …
        batch_size: Rows per run of the model, at most.
        output_mode: What the model gives: ``"logits"``, ``"probs"``, or ``"auto"``, which decides once per run; likewise
            ``"log_probs"``, ``"binary_logits"`` and ``"binary_probs"``.
        output_transform: Takes the raw output (n, …) as a tensor and returns distributions (n, k); replaces `output_mode`.
        input_getter: Takes an element of the data and returns the model's input.
        model_name: A name for the model in files.
        engine: ``"auto"`` (ONNX, else native), ``"onnx"`` (or an error) or ``"native"``.
        last_run: How the last rows came to be; ``None`` before the first run.
    """

    model: Any
    device: str = "cpu"
    batch_size: int = 64
    output_mode: str = "auto"
    output_transform: Callable[[Any], Any] | None = None
    input_getter: Callable[[Any], Any] | None = None
    model_name: str | None = None
    engine: str = "auto"
    last_run: LastRun | None = field(default=None, init=False)

    tensors: ClassVar[Tensors] = NumpyTensors()
    framework: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        """Checks what can be checked without a model or data. Raises `OptionError`, which is a `ValueError`."""
        self.output_mode = str(self.output_mode or "auto").lower()
        choice("output_mode", self.output_mode, MODES)
        choice("engine", self.engine, ENGINES)
        positive_int("batch_size", self.batch_size)
        self.device = str(self.device)

    def generate_distributions(self, dataset_or_loader: Any, *, progress: bool = True) -> RowDict:
        """One distribution per sample, by its index in the dataset.

        Args:
            dataset_or_loader: A dataset or loader of the framework, arrays, or anything else that `fo_onnx.generate` takes.
                Labels in it are passed over. A shuffled loader is refused, since rows could not be told apart.
            progress: Whether a bar is shown where standard error is a terminal.

        Returns:
            A dict from index to row (k,) float32, a tensor of the framework on the CPU, made when it is asked for.

        Raises:
            FoOnnxError: A row could not be read or run, or the model or its output cannot be used; the finished rows are in
                the error's attribute ``finished``.
        """
        return RowDict(self.run(dataset_or_loader, labels=False, progress=progress), self.tensors)

    def run(self, data: Any, *, labels: Any = None, progress: bool = True) -> Distributions:
        """The same as a `Distributions`, with the labels that the data hold.

        Args:
            data: As `generate_distributions` takes it.
            labels: As `fo_onnx.generate` takes them.
            progress: Whether a bar is shown where standard error is a terminal.
        """
        found = api.generate(
            self.model, self.readable(data), labels=labels, device=self.device, engine=self.engine,
            batch_size=self.batch_size, framework=self._framework(),
            output="auto" if self.output_transform is not None else self.output_mode,
            output_transform=_over_arrays(self.output_transform, self.tensors), input_getter=self.getter(data),
            model_name=self.model_name, progress=None if progress else False,
        )  # fmt: skip
        self.last_run = LastRun.of(found.meta)
        return found

    def readable(self, data: Any) -> Any:
        """What the engine reads in the place of `data`."""
        return data.in_order() if isinstance(data, SimpleDataLoader) else data

    def getter(self, data: Any) -> Callable[[Any], Any] | None:
        """What takes the model's input out of an element of `data`; ``None`` leaves it to the structure of the data."""
        return self.input_getter

    def prepares_batch_inp(self, batch: Any) -> Any:
        """The model's input in a sample or a batch: by `input_getter`, else the first part of a tuple, else all of it."""
        if self.input_getter is not None:
            return self.input_getter(batch)
        return batch[0] if isinstance(batch, tuple) and batch else batch

    def to_device(self, value: Any) -> Any:
        """`value` with every tensor in it on the generator's device, through nested dicts, lists and tuples.

        Raises:
            DeviceError: The device is not there.
        """
        device = str(parse_device(self.device))
        if device == "auto":
            return value
        return map_tensors(value, self.tensors, lambda tensor: self.tensors.moved(tensor, device))

    def to_probs(self, outputs: Any) -> Any:
        """Distributions (n, k) of a raw output, as a tensor on the same device.

        With ``output_mode="auto"`` the decision of the last run holds; before the first one, `outputs` decide.

        Args:
            outputs: (n, k), or (k,) for one sample.

        Raises:
            OutputError: A row is no distribution, or what `outputs` are cannot be told.
        """
        if self.output_transform is not None:
            return self.output_transform(outputs)
        raw = np.asarray(self.tensors.array(outputs))
        raw = raw[None] if raw.ndim == 1 and not self._mode().startswith("binary") else raw
        who = self.model_name or "the model"
        check_raw_shape(raw.shape, None, None, who)
        kind: Any = self._mode() if self._mode() != "auto" else decide_kind(raw, who)
        check_raw_shape(raw.shape, kind, None, who)
        probs, _ = apply_head(raw.astype(np.float32), kind)
        bad = invalid_rows(probs)
        if len(bad):
            raise OutputError(
                f"to_probs: {len(bad)} of {len(probs)} rows are no distribution as {kind!r}, row {int(bad[0])} first "
                f"({np.array2string(raw[bad[0]], precision=3, threshold=8)}). Say output_mode='logits' if they are logits."
            )
        return self.tensors.tensor(probs, outputs)

    def get_posterior_distributions(self) -> dict[str, dict[str, Any]]:
        """The posteriors of Bayesian layers: ``{"layer.weight": {"mu": tensor, "rho": tensor}, …}``.

        Each is a pair of parameters whose names end in ``_mu`` and ``_rho``, or in ``.mu`` and ``.rho`` (Blundell et al.,
        Weight Uncertainty in Neural Networks, ICML 2015, section 3.2: σ = log(1 + exp(ρ))). The tensors are copies.
        """
        halves: dict[str, dict[str, Any]] = {}
        for name, parameter in self.tensors.parameters(self.model):
            for half in ("mu", "rho"):
                if name.endswith((f"_{half}", f".{half}")):
                    halves.setdefault(name[: -len(half) - 1], {})[half] = parameter
        return {name: pair for name, pair in halves.items() if len(pair) == 2}

    def save_distributions(
        self, path: str | os.PathLike[str], distributions: Any, *, meta: Mapping[str, Any] | None = None
    ) -> None:
        """Writes rows into a file whose format the suffix tells: ``.json``, ``.parquet``, ``.npz`` …; replaces what is there.

        Args:
            path: The file. Its folder is made where it is missing.
            distributions: What `generate_distributions` gave, or any dict from index to row.
            meta: Your own record, as JSON types; beside it the model's name and how the rows came to be are kept.

        Raises:
            DataError: A row is no distribution.
            StoreError: The file cannot be written, or its suffix is not known.
        """
        path = Path(path)
        if not path.suffix:
            raise OptionError(
                f"saving to {path}: a path with a suffix was expected, such as {path}.json or {path}.parquet."
            )
        found = distributions_of(distributions, self.tensors)
        user = {**({} if self.model_name is None else {"model_name": self.model_name}), **(meta or {})}
        kept = Distributions.from_rows(found.source, {**found.meta, "user": {**found.meta.get("user", {}), **user}})
        make_folder_of(path)
        save(kept, path, overwrite=True)

    def load_distributions(self, path: str | os.PathLike[str]) -> tuple[RowDict, dict[str, Any]]:
        """The rows in a file, whichever framework's generator wrote it, and its meta.

        Returns:
            The rows as `generate_distributions` gives them, and what was given as ``meta=`` when they were saved, with
            ``"model_name"``, beside the record of the run (under the keys of `docs/spec.md`, "meta").

        Raises:
            StoreError: It is no such file, or damaged. A row that is no distribution is told when it is asked for.
        """
        found = load(Path(path))
        return RowDict(found, self.tensors), {**with_flat_keys(found.meta), **found.meta.get("user", {})}

    def _mode(self) -> str:
        if self.output_mode == "auto" and self.last_run is not None and self.last_run.output is not None:
            return self.last_run.output
        return self.output_mode

    def _framework(self) -> str | None:
        return None if isinstance(self.model, str | os.PathLike | OnnxModel) else self.framework


def make_folder_of(path: Path) -> None:
    """Makes the folder of a file where it is missing. Raises `StoreError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise StoreError(f"saving to {path}: its folder cannot be made ({err.strerror or err}).") from err


def _over_arrays(transform: Callable[[Any], Any] | None, tensors: Tensors) -> Callable[[Any], Any] | None:
    """A function over a framework's tensors as one over arrays, which is what the engine calls."""
    if transform is None:
        return None

    def over_arrays(raw: NDArray[Any]) -> NDArray[Any]:
        return tensors.array(transform(tensors.tensor(raw)))

    return over_arrays
