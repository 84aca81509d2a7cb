"""The precision of a run: float32, unless a lower one was allowed, is within its budget, and is faster on this machine.

Three kinds of rows: some measure the ranges of activations, others tell how far rows are from the float32 ones, and the first
rows of the data are timed. The reference is the float32 file, which has been compared with the original.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..contracts.batch import count_rows, cut_inputs
from ..contracts.options import FLOAT_SHARES, SIGNED, choice
from ..contracts.precision_report import FLOAT32, PrecisionReport, PrecisionTrial
from ..control.run_control import current
from ..conversion.quantize import SLOWER_OPTIMIZERS, digest_rows, quantize
from ..errors import DataError, DeviceError, ExportError, ModelError, OptionError, OutputError, ParityError, RunError
from ..models.onnx_model import LoadedOnnx
from ..runtime.compare_speed import compare_speed, workload_of
from ..runtime.devices import KINDS, Placement, place_in_bf16, placements
from ..runtime.measured_plan import open_measured
from ..runtime.measurements import Measurements
from ..runtime.open_runners import open_onnx_runners
from ..runtime.opened import OpenedModel
from ..runtime.original_rows import AskingRunner
from ..runtime.request import RunRequest
from ..runtime.session import available_providers, runtime
from .held_out import HeldOut, hold_out, judge

log = logging.getLogger("fo_onnx.engine")
_REFUSALS = (DataError, DeviceError, ExportError, ModelError, OutputError, RunError)
_WAY_OUT = "Say precision='auto', which takes what can be had, or precision='float32'."


def lower_precision(
    loaded: LoadedOnnx, opened: OpenedModel, request: RunRequest, folder: Path
) -> tuple[LoadedOnnx, OpenedModel]:
    """Return a model in the precision that its run gets, with the report of the choice.

    Args:
        loaded: The float32 file, with its head.
        opened: Its open sessions, cut as the run will be; they are closed if others take their place.
        request: What was asked for, and how rows that are held out are read.
        folder: A temporary folder, for the files.

    Raises:
        OptionError: A precision that was asked for by name cannot be had.
        ParityError: It is beyond the budget.
    """
    if not request.run.may_lower_precision:
        return loaded, opened
    names = _possible_precisions(opened.placement, request)
    if not isinstance(request.run.device, str) and len(request.run.device) > 1:
        return loaded, stay_in_float32(opened, request, "several devices run in float32")
    asked = request.run.precision
    if not names or asked not in ("auto", *names):
        return loaded, stay_in_float32(opened, request, _describe_missing(asked, names, opened.runners[0].device))
    rows = hold_out(opened, request)
    if isinstance(rows, str):
        return loaded, stay_in_float32(opened, request, rows)
    search = _Search(loaded, opened, request, folder, rows)
    try:
        if asked == "auto":
            search.find_fastest(names)
        else:
            search.take(asked)
        return search.finish()
    except BaseException:
        search.close()
        raise


def stay_in_float32(opened: OpenedModel, request: RunRequest, reason: str) -> OpenedModel:
    """Return the model as it is, with why no lower precision was tried.

    Raises:
        OptionError: A precision was asked for by name.
    """
    asked = request.run.precision
    if asked != "auto":
        opened.close()
        raise OptionError(f"precision={asked!r} was asked for, and cannot be had: {reason}. {_WAY_OUT}")
    log.info("precision='auto' stays in float32: %s", reason)
    assert request.run.tv_budget is not None
    return replace(opened, precision=PrecisionReport(asked, FLOAT32, request.run.tv_budget, reason))


class _Search:
    """One search: what was tried, and the lowered model that is the best so far, kept open."""

    def __init__(
        self, loaded: LoadedOnnx, opened: OpenedModel, request: RunRequest, folder: Path, rows: HeldOut
    ) -> None:  # fmt: skip
        self._loaded, self._opened, self._folder, self._rows = loaded, opened, folder, rows
        self._request = request
        assert request.run.tv_budget is not None
        self._budget = request.run.tv_budget
        self._trials: list[PrecisionTrial] = []
        self._best: tuple[PrecisionTrial, LoadedOnnx, OpenedModel] | None = None
        self._report: PrecisionReport | None = None

    def take(self, name: str) -> None:
        """Take the precision that was asked for by name, whatever its speed."""
        trial = self._try(name, is_timed=False)
        if trial.problem is not None:
            raise OptionError(f"precision={name!r} was asked for, and cannot be had: {trial.problem}. {_WAY_OUT}")
        if self._best is None:
            raise ParityError(
                f"{trial.describe()}, over {count_rows(self._rows.judged)} rows, is above tv_budget={self._budget:g}. Give another "
                "tv_budget=, or say precision='float32'."
            )
        self._report = self._describe("asked for by name")

    def find_fastest(self, names: Sequence[str]) -> None:
        """Take the fastest precision within the budget: as it was measured on this machine before, or as it is now."""
        store, key = Measurements.of_user(), self._key(names)
        if self._remember(store.read("precision", key), names):
            return
        if "int8" in names:
            self._search_int8()
        for name in ("bf16", "tf32"):
            if name in names:
                self._try(name)
        self._report = self._describe(self._reason())
        # If nothing could be tried, a full disk may be the reason, which is no property of the model.
        if any(trial.problem is None for trial in self._trials):
            store.keep("precision", key, self._report.to_dict())

    def close(self) -> None:
        """Close everything."""
        if self._best is not None:
            self._best[2].close()
        self._opened.close()

    def finish(self) -> tuple[LoadedOnnx, OpenedModel]:
        """Return what was chosen, and close the rest."""
        assert self._report is not None
        for line in self._report.lines():
            log.info("precision: %s", line)
        if self._best is None:
            return self._loaded, replace(self._opened, precision=self._report)
        _, loaded, lowered = self._best
        for runner in self._opened.runners:
            runner.close()
        if loaded is not self._loaded and self._opened.plan.measured:
            # So far it was cut as in float32; what is cut by rule there is so in any precision.
            place = lowered.placement
            assert place is not None
            lowered.close()
            lowered = open_measured(loaded, self._request, place)
        lowered = self._asking(lowered)
        float32 = self._opened
        lowered = replace(
            lowered, sha256=float32.sha256, parity=float32.parity, path=float32.path, original=float32.original,
            resources=float32.resources, precision=self._report,
        )  # fmt: skip
        return loaded, lowered

    def _search_int8(self) -> None:
        """Try int8: the whole net, then less and less of it until it is within the budget; then the other sign of the best."""
        if self._try("int8").problem is not None:
            return
        self._try("int8-edges")
        if not self._within():
            self._try("int8-layers")
        for name in (name for name, share in FLOAT_SHARES.items() if share):
            # With more of it in float32 it only gets slower.
            if self._within() or not self._try(name).is_faster:
                break
        if within := self._within():
            self._try(max(within, key=lambda t: t.speedup or 0).name + SIGNED)

    def _within(self) -> list[PrecisionTrial]:
        return [trial for trial in self._trials if trial.is_within(self._budget)]

    def _try(self, name: str, *, is_timed: bool = True) -> PrecisionTrial:
        """Judge and time a precision; the best one so far stays open. One that is not timed is the best if it is within the budget."""
        current().check(f"before {name} was tried")
        log.info("precision: trying %s", name)
        try:
            loaded, opened = self._open(name)
        except _REFUSALS as err:
            self._trials.append(PrecisionTrial(name, problem=str(err).rstrip(".")))
            return self._trials[-1]
        is_best = False
        try:
            asking = self._asking(opened)
            distances, flips = judge(asking, self._rows)
            float32, lower = (workload_of(each, self._request.example) for each in (self._opened, asking))
            speed = compare_speed(float32, lower) if is_timed else None
            trial = PrecisionTrial(
                name, None if speed is None else speed.ratio, float(np.percentile(distances, 99)),
                float(distances.max()), flips, speed is not None and speed.is_faster(),
            )  # fmt: skip
            best_speed = 0.0 if self._best is None else self._best[0].speedup or 0.0
            is_wanted = trial.is_faster and (trial.speedup or 0.0) > best_speed
            is_best = trial.is_within(self._budget) and (is_wanted or not is_timed)
        except _REFUSALS as err:
            trial = PrecisionTrial(name, problem=f"it failed on rows of the data: {str(err).rstrip('.')}")
        finally:
            if not is_best:
                opened.close()
        self._trials.append(trial)
        if is_best:
            if self._best is not None:
                self._best[2].close()
            self._best = trial, loaded, opened
        return trial

    def _open(self, name: str) -> tuple[LoadedOnnx, OpenedModel]:
        place = self._opened.placement
        assert place is not None
        loaded = self._loaded
        if name == "tf32":
            place = placements(place.device, name, available_providers())[0]
        elif name == "bf16":
            place = place_in_bf16()
            self._require_bf16(place)
        else:
            loaded = quantize(loaded, name, self._rows.calibration, self._folder)
            place = Placement("cpu", KINDS["cpu"], disabled_optimizers=SLOWER_OPTIMIZERS)
        if loaded is self._loaded:
            return loaded, open_measured(loaded, self._request, place)
        # One of several files is cut as in float32 until one is chosen.
        return loaded, open_onnx_runners(loaded, replace(self._request, recorded_plan=self._opened.plan), [place])

    def _require_bf16(self, place: Placement) -> None:
        """Raise `DeviceError` if OpenVINO gives the rows of float32: on a processor without bfloat16 it does not say so."""
        plan, rows = replace(self._opened.plan, sessions=1), []
        batch = next(cut_inputs(self._request.example, plan.batch_size))
        for each in (place, *placements("openvino", FLOAT32, available_providers())):
            opened = open_onnx_runners(self._loaded, replace(self._request, recorded_plan=plan), [each])
            try:
                rows.append(opened.runners[0].run(batch).probs)
            finally:
                opened.close()
        if np.array_equal(rows[0], rows[1], equal_nan=True):
            raise DeviceError("OpenVINO has no bfloat16 on this processor, and gives the rows of float32")

    def _asking(self, opened: OpenedModel) -> OpenedModel:
        """Return runners that ask the original, as those in float32 do."""
        original = self._opened.original
        if original is None:
            return opened
        return replace(opened, runners=tuple(AskingRunner(runner, original) for runner in opened.runners))

    def _remember(self, record: Mapping[str, Any] | None, names: Sequence[str]) -> bool:
        """Take the recorded choice if it can be had again, bit for bit. Its rows are judged again, its speed is not."""
        if record is None:
            return False
        try:
            report = PrecisionReport.from_dict(record)
            choice("its precision", report.choice, (FLOAT32, *names))
        except (OptionError, TypeError, ValueError) as err:
            log.info("the recorded choice of a precision is not taken: %s", err)
            return False
        if report.choice != FLOAT32:
            self._try(report.choice, is_timed=False)
            self._trials.clear()
            if self._best is None or _sha256(self._best[1], self._loaded) != report.sha256:
                if self._best is not None:
                    self._best[2].close()
                self._best = None
                return False
        self._report = report
        return True

    def _describe(self, reason: str) -> PrecisionReport:
        choice = FLOAT32 if self._best is None else self._best[0].name
        return PrecisionReport(
            self._request.run.precision, choice, self._budget, reason, count_rows(self._rows.calibration), count_rows(self._rows.judged),
            tuple(self._trials), None if self._best is None else _sha256(self._best[1], self._loaded),
        )  # fmt: skip

    def _reason(self) -> str:
        if self._best is not None:
            return f"the fastest on this machine within tv_budget={self._budget:g}"
        if self._within():
            return f"nothing within tv_budget={self._budget:g} is faster on this machine"
        if any(t.problem is None for t in self._trials):
            return f"nothing is within tv_budget={self._budget:g}"
        return f"no lower precision can be had: {self._trials[0].problem}"

    def _key(self, names: Sequence[str]) -> dict[str, Any]:
        """Return what the choice depends on, besides the machine."""
        rows, plan, digest = self._rows, self._opened.plan, hashlib.sha256()
        digest.update(self._loaded.proto.SerializeToString(deterministic=True))
        digest.update(self._loaded.model.sha256.encode())  # of external data, too
        for inputs in (rows.calibration, rows.judged):
            digest.update(digest_rows(inputs))
        return {
            "content": digest.hexdigest(), "precisions": list(names), "tv_budget": self._budget, "onnxruntime": runtime().__version__,
            "device": self._opened.runners[0].device, "batch_size": plan.batch_size, "sessions": plan.sessions, "threads": plan.threads,
        }  # fmt: skip


def _possible_precisions(place: Placement | None, request: RunRequest) -> tuple[str, ...]:
    """Return the lower precisions that a device may have."""
    if place is None:
        return ()
    if place.provider in (KINDS["cuda"], KINDS["tensorrt"]):
        return ("tf32",)
    bf16 = ("bf16",) if KINDS["openvino"] in available_providers() else ()
    if place.provider == KINDS["openvino"] and request.run.device != "auto":
        return bf16
    return (*FLOAT_SHARES, *(f"{name}{SIGNED}" for name in FLOAT_SHARES), *bf16)


def _describe_missing(asked: str, names: tuple[str, ...], device: str) -> str:
    if asked == "bf16" and "int8" in names:
        return (
            "it needs OpenVINO's build of ONNX Runtime in the place of the installed one (pip uninstall -y onnxruntime, then pip "
            "install 'fo-onnx[openvino]')"
        )
    return f"{device} has {'no lower precision' if not names else 'only ' + ', '.join(names)}"


def _sha256(lowered: LoadedOnnx, loaded: LoadedOnnx) -> str | None:
    """Return the digest of a file in a lower precision, before its head; ``None`` if it is the float32 file itself."""
    return None if lowered is loaded else lowered.model.sha256
