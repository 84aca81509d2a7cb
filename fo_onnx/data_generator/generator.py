"""The generator of the guide, whatever the framework: its arguments and methods on one side, the engine on the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .. import api
from ..contracts.options import RUNNERS, choice, positive_int
from ..contracts.parity_report import ParityReport
from ..contracts.spec import OUTPUT_KINDS, OutputKind
from ..distributions import Distributions
from ..distributions.probabilities import apply_head, check_raw_shape, decide_kind, invalid_rows
from ..errors import DataError, OptionError, OutputError, StoreError
from ..models.onnx_model import OnnxModel
from ..runtime.devices import parse_device
from ..store import load, save
from ..store.schema import with_flat_keys
from .arguments import rewrite, rewrite_errors
from .pairing import SimpleDataLoader, take_input
from .tensors import NumpyTensors, Tensors, to_distributions


@dataclass(frozen=True)
class LastRun:
    """How the rows of a generator's last run came to be.

    Attributes:
        runner: ``"onnx"`` or ``"native"``.
        reason: Why it was not the first choice; ``None`` if it was.
        parity: How the exported model compared with the original; ``None`` if there was nothing to compare.
        output: What the model's output was taken for; ``None`` with an ``output_transform``.
        meta: The whole record, as `docs/files.md` lists it under "meta".
    """

    runner: str
    reason: str | None
    parity: ParityReport | None
    output: OutputKind | None
    meta: dict[str, Any] = field(repr=False)

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> LastRun:
        """Read the record of a run."""
        reason = meta["runner"]["reason"]
        return cls(
            runner=meta["runner"]["kind"],
            reason=None if reason is None else rewrite(reason),
            parity=ParityReport.of_record(meta.get("parity")),
            output=meta["model"]["output"],
            meta=meta,
        )


@dataclass(eq=False)
class FirstOrderDataGenerator:
    """Gives one class distribution per sample of a dataset, as a dict from position to row.

    The modules of the frameworks bind it to their tensors. The rows are those of `fo_onnx.generate`.

    Attributes:
        model: A model of the framework, a callable over its tensors, an `OnnxModel`, or the path of a model's file.
        device: Where the model runs: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"gpu"``, ``"tpu"``, ``"auto"`` …
        batch_size: Rows per run of the model, at most.
        output_mode: What the model gives: ``"logits"``, ``"probs"``, ``"log_probs"``, ``"binary_logits"``,
            ``"binary_probs"``, or ``"auto"``, which decides once per run.
        output_transform: Takes the raw output (n, …) as a tensor and returns distributions (n, k); replaces `output_mode`.
        input_getter: Takes an element of the data and returns the model's input.
        model_name: A name for the model in files.
        runner: ``"auto"`` (ONNX; native for small jobs, if that is faster, or if ONNX fails), ``"onnx"`` (or an error) or
            ``"native"``.
        last_run: How the last rows came to be; ``None`` before the first run.
    """

    model: Any
    device: str = "cpu"
    batch_size: int = 64
    output_mode: str = "auto"
    output_transform: Callable[[Any], Any] | None = None
    input_getter: Callable[[Any], Any] | None = None
    model_name: str | None = None
    runner: str = "auto"
    last_run: LastRun | None = field(default=None, init=False)
    _last_rows: Distributions | None = field(default=None, init=False, repr=False)

    tensors: ClassVar[Tensors] = NumpyTensors()
    framework: ClassVar[str | None] = None
    pair_types: ClassVar[tuple[Any, ...]] = (tuple,)
    """Types of samples and batches whose first part is the input."""

    def __post_init__(self) -> None:
        """Check what can be checked without a model or data. Raises `OptionError`, which is a `ValueError`."""
        self.output_mode = str(self.output_mode or "auto").lower()
        choice("output_mode", self.output_mode, ("auto", *OUTPUT_KINDS))
        choice("runner", self.runner, RUNNERS)
        positive_int("batch_size", self.batch_size)
        self.device = str(self.device)

    def generate_distributions(self, dataset_or_loader: Any, *, progress: bool = True) -> dict[int | str, list[float]]:
        """Return one distribution per sample, by its position in the dataset.

        Args:
            dataset_or_loader: A dataset or loader of the framework, arrays, or anything else that `fo_onnx.generate` takes.
                Its labels are left out. A shuffled loader is refused, since rows could not be distinguished.
            progress: Whether a bar is shown if standard error is a terminal.

        Returns:
            A dict from position to a list of k floats, in the order of the samples. Data that hold ids of their own (file names
            of images, say) give these in place of positions.

        Raises:
            FoOnnxError: A row could not be read or run, or the model or its output cannot be used; the finished rows are in
                the error's attribute ``finished``.
        """
        return self.run(dataset_or_loader, labels=False, progress=progress).to_dict()

    def run(self, data: Any, *, labels: Any = None, progress: bool = True) -> Distributions:
        """Return the same as a `Distributions`, with the labels that the data hold, or with `labels`."""
        # The caller's function takes and returns tensors, the core's arrays.
        transform = self.output_transform
        over_arrays = None if transform is None else lambda raw: self.tensors.array(transform(self.tensors.tensor(raw)))
        # A file says itself what it is of.
        from_file = isinstance(self.model, str | os.PathLike | OnnxModel)
        with rewrite_errors():
            data = self.unwrap_loader(data)
            rows = api.generate(
                self.model, data, labels=labels, device=self.device, runner=self.runner,
                batch_size=self.batch_size, framework=None if from_file else self.framework,
                output="auto" if transform is not None else self.output_mode, output_transform=over_arrays,
                input_getter=self.choose_getter(data), model_name=self.model_name, progress=None if progress else False,
            )  # fmt: skip
        self.last_run, self._last_rows = LastRun.from_meta(rows.meta), rows
        return rows

    def unwrap_loader(self, data: Any) -> Any:
        """Return what the engine reads: the dataset of a `SimpleDataLoader`, which must not shuffle, else `data`."""
        if not isinstance(data, SimpleDataLoader):
            return data
        if data.shuffle:
            raise DataError(
                "the loader was made with shuffle=True, so that results could not be matched with samples. Make it with "
                "shuffle=False, or give its dataset."
            )
        return data.dataset

    def choose_getter(self, data: Any) -> Callable[[Any], Any] | None:
        """Return what takes the model's input out of an element of `data`; ``None`` leaves it to the structure of the data."""
        return self.input_getter

    def prepares_batch_inp(self, batch: Any) -> Any:
        """Return the model's input in a sample or batch: by `input_getter`, else the first part of a tuple, else all of it."""
        return take_input(batch, self.input_getter, self.pair_types)

    def to_device(self, value: Any) -> Any:
        """Return `value` with every tensor in it on the generator's device, through nested dicts, lists and tuples.

        Raises:
            DeviceError: The device is not there.
        """
        device = str(parse_device(self.device))

        def move(part: Any) -> Any:
            if self.tensors.is_tensor(part):
                return self.tensors.moved(part, device)
            if isinstance(part, Mapping):
                return {k: move(v) for k, v in part.items()}
            # A named tuple takes its parts one by one.
            if isinstance(part, tuple) and hasattr(part, "_fields"):
                return type(part)(*map(move, part))
            return type(part)(map(move, part)) if isinstance(part, list | tuple) else part

        return value if device == "auto" else move(value)

    def to_probs(self, outputs: Any) -> Any:
        """Return the distributions (n, k) of a raw output, as a tensor on the same device.

        With ``output_mode="auto"`` the decision of the last run holds; before the first one, `outputs` decide.

        Args:
            outputs: (n, k), or (k,) for one sample.

        Raises:
            OutputError: A row is no distribution, or it is not clear what `outputs` are.
        """
        if self.output_transform is not None:
            return self.output_transform(outputs)
        # What the output means: as it was said, or by the last run, or by these rows.
        mode: Any = self.output_mode
        if mode == "auto" and self.last_run is not None and self.last_run.output is not None:
            mode = self.last_run.output
        raw = np.asarray(self.tensors.array(outputs))
        raw = raw[None] if raw.ndim == 1 and not mode.startswith("binary") else raw
        name = self.model_name or "the model"
        with rewrite_errors():
            check_raw_shape(raw.shape, None, None, name)
            kind = mode if mode != "auto" else decide_kind(raw, name)
            check_raw_shape(raw.shape, kind, None, name)
        # The same head as in a run.
        probs, _ = apply_head(raw.astype(np.float32), kind)
        bad = invalid_rows(probs)
        if len(bad):
            raise OutputError(
                f"to_probs: {len(bad)} of {len(probs)} rows are no distribution as {kind!r}, row {int(bad[0])} first "
                f"({np.array2string(raw[bad[0]], precision=3, threshold=8)}). Say output_mode='logits' if they are logits."
            )
        return self.tensors.tensor(probs, outputs)

    def get_posterior_distributions(self) -> dict[str, dict[str, Any]]:
        """Return copies of the posteriors of Bayesian layers: ``{"layer.weight": {"mu": tensor, "rho": tensor}, …}``.

        Each is a pair of parameters whose names end in ``_mu`` and ``_rho``, or in ``.mu`` and ``.rho`` (Blundell et al.,
        Weight Uncertainty in Neural Networks, ICML 2015, section 3.2: σ = log(1 + exp(ρ))).
        """
        posteriors: dict[str, dict[str, Any]] = {}
        for name, parameter in self.tensors.parameters(self.model):
            if name.endswith(("_mu", ".mu", "_rho", ".rho")):
                half = "mu" if name.endswith("mu") else "rho"
                posteriors.setdefault(name[: -len(half) - 1], {})[half] = parameter
        return {name: pair for name, pair in posteriors.items() if len(pair) == 2}

    def save_distributions(
        self, path: str | os.PathLike[str], distributions: Any, *, meta: Mapping[str, Any] | None = None
    ) -> None:
        """Write rows into a file whose format the suffix tells: ``.json``, ``.parquet``, ``.npz`` …; replace what is there.

        Args:
            path: The file. Its folder is made if it is missing.
            distributions: What `generate_distributions` gave, or any dict from position to row, a `Distributions` or a file.
            meta: Your own record, as JSON types. The model's name is kept with it, and, for the rows that this generator
                gave last, how they came to be.

        Raises:
            DataError: The rows cannot be read as numbers.
            OutputError: A row is no distribution.
            StoreError: The file cannot be written, or its suffix is not known.
        """
        path = Path(path)
        if not path.suffix:
            raise OptionError(
                f"saving to {path}: a path with a suffix was expected, such as {path}.json or {path}.parquet."
            )
        rows, last = to_distributions(distributions, self.tensors), self._last_rows
        # A dict does not say how its rows came to be.
        if last is not None and not rows.meta and list(rows) == list(last) and np.array_equal(rows.probs, last.probs):
            rows = last
        # The user's own record wins over what a file said before.
        user = {**({} if self.model_name is None else {"model_name": self.model_name}), **(meta or {})}
        record = {**rows.meta, "user": {**rows.meta.get("user", {}), **user}}
        make_parent(path)
        with rewrite_errors():
            save(Distributions.from_rows(rows.source, record), path, overwrite=True)

    def load_distributions(self, path: str | os.PathLike[str]) -> tuple[dict[int | str, list[float]], dict[str, Any]]:
        """Return the rows in a file, whichever framework's generator wrote it, and its meta.

        Returns:
            The rows as `generate_distributions` gives them, and what was given as ``meta=`` when they were saved, with
            ``"model_name"``, beside the record of the run (under the keys of `docs/files.md`, "meta").

        Raises:
            StoreError: It is no such file, or damaged.
            OutputError: A row is no distribution.
        """
        with rewrite_errors():
            rows = self._last_rows = load(Path(path))
            return rows.to_dict(), {**with_flat_keys(rows.meta), **rows.meta.get("user", {})}


def make_parent(path: Path) -> None:
    """Make the folder of a file if it is missing. Raises `StoreError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise StoreError(f"saving to {path}: its folder cannot be made ({err.strerror or err}).") from err
