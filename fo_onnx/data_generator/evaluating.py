"""The generators that hold their dataset and say how the model does on it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..distributions import Distributions
from ..errors import RunError, StoreError, StoreNotFoundError, reading
from ..guards.limits import check_regular
from ..store import files
from .arguments import TAKEN_BY_GENERATOR, rewrite_errors
from .generator import FirstOrderDataGenerator, LastRun, make_parent

SECTIONS = ("info", "metrics", "class_distribution", "confidence")


class DataGenerator:
    """A model and a dataset; `generate` says how the one does on the other.

    Attributes:
        model: The model.
        dataset: The samples, batched or not, with labels or without.
        batch_size: Rows per run of the model.
        device: Where the model runs; ``None`` leaves it where it is.
        results: What `generate` or `load` gave last.
    """

    generator: ClassVar[type[FirstOrderDataGenerator]] = FirstOrderDataGenerator
    framework: ClassVar[str] = "agnostic"

    def __init__(self, model: Any, dataset: Any, batch_size: int = 32, device: str | None = None) -> None:
        self.model, self.dataset, self.batch_size, self.device = model, dataset, batch_size, device
        self.results: dict[str, Any] = {}
        self._generator = self.generator(model, device=device or "auto", batch_size=batch_size)

    @property
    def last_run(self) -> LastRun | None:
        """Return how the last rows came to be."""
        return self._generator.last_run

    def generate(self, *, progress: bool = True) -> dict[str, Any]:
        """Run the model on every row and say how it does.

        Args:
            progress: Whether a bar is shown if standard error is a terminal.

        Returns:
            ``info`` (framework, dataset_size, batch_size, runner, device), ``metrics`` (accuracy, nll, brier, ece as in
            `fo_onnx.distributions.metrics`; empty if the dataset has no labels), ``class_distribution`` (rows per class: ``predicted``
            and, with labels, ``ground_truth``), and ``confidence`` (mean, std, min and max of each row's largest probability).

        Raises:
            FoOnnxError: As `FirstOrderDataGenerator.generate_distributions`; or a label is no class.
        """
        with rewrite_errors(TAKEN_BY_GENERATOR):
            rows = self._generator.run(self.dataset, progress=progress)
        # The sections of the guide.
        info = {
            "framework": self.framework, "dataset_size": len(rows), "batch_size": self.batch_size,
            "runner": rows.meta["runner"]["kind"], "device": rows.meta["engine"]["device"],
        }  # fmt: skip
        self.results = {"info": info, **_measure(rows)}
        return self.results

    def generate_distributions(self, dataset: Any = None, *, progress: bool = True) -> dict[int | str, list[float]]:
        """Return one distribution per sample of `dataset`, or of the generator's own; see `FirstOrderDataGenerator`."""
        with rewrite_errors(TAKEN_BY_GENERATOR):
            return self._generator.generate_distributions(
                self.dataset if dataset is None else dataset, progress=progress
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the results into a JSON file; replace one that it wrote before, and nothing else.

        Raises:
            RunError: There are none yet.
            StoreExistsError: Something else is there.
            StoreError: The file cannot be written.
        """
        if not self.results:
            raise RunError(f"saving to {path}: there are no results yet; call generate() first.")
        path = Path(path)
        make_parent(path)
        # Written whole, beside what is there, which is replaced only if it is such a file.
        doing, content = "saving results", json.dumps(self.results, indent=2).encode()
        with files.work_folder(path, doing) as folder:
            files.write_bytes(path, content, doing, temporary=folder / files.WORK_FILES[0], replaces=_holds_results)

    def load(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """Return the results in a file that `save` wrote.

        Raises:
            StoreError: It cannot be read, or is no such file.
        """
        self.results = _read_results(Path(path))
        return self.results


def _read_results(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise StoreNotFoundError(f"Loading {path}: nothing is there.")
    with reading(path, StoreError, "Loading"):
        check_regular(path, StoreError, "Loading")
        results = json.loads(path.read_bytes())
        if not isinstance(results, dict) or not set(SECTIONS) <= set(results):
            raise StoreError(
                f"Loading {path}: no results of generate(); an object with {', '.join(SECTIONS)} was expected. Distributions are "
                "loaded with load_distributions() or fo_onnx.load()."
            )
        # JSON has text keys only, and classes are numbers.
        counts = results["class_distribution"].items()
        results["class_distribution"] = {name: {int(c): n for c, n in table.items()} for name, table in counts}
    return results


def _holds_results(path: Path) -> bool:
    try:
        _read_results(path)
    except StoreError:
        return False
    return True


def _measure(rows: Distributions) -> dict[str, Any]:
    metrics = rows.metrics()
    counts = {"predicted": metrics["predicted_classes"]}
    if rows.labels is not None:
        counts["ground_truth"] = metrics.get("true_classes", [])
    confidence = metrics["confidence"]
    spread = float(rows.probs.max(axis=1).std(dtype=np.float64)) if len(rows) else None
    return {
        "metrics": {k: metrics[k] for k in ("accuracy", "nll", "brier", "ece") if k in metrics},
        "class_distribution": {name: {c: n for c, n in enumerate(table) if n} for name, table in counts.items()},
        "confidence": {"mean": confidence["mean"], "std": spread, "min": confidence["min"], "max": confidence["max"]},
    }
