"""What a resumed run must have in common with the one begun: model and options. Rows are compared by `finished_rows`.

The model runs the first finished rows again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..contracts.batch import Batch
from ..contracts.batch_plan import MOST, BatchPlan, plan_of_record
from ..contracts.options import LOWER_PRECISIONS, PRECISIONS, RunOptions, choice
from ..contracts.parity_report import ParityReport
from ..contracts.precision_report import PrecisionReport
from ..contracts.runner import Runner
from ..contracts.source import Source
from ..errors import DataError, OptionError, ResumeError, StoreError, first_line
from ..runtime.opened import OpenedModel
from ..store import RunFolder, differences
from .rerun_rows import describe_other_rows

_WORDS = {
    "model.sha256": "the model (its weights or its code)",
    "model.output": "what the model's output means",
    "model.output_name": "which output of the model is meant",
    "model.output_transform": "output_transform",
    "model.temperature": "the temperature",
    "model.classes": "the number of classes",
    "model.class_names": "the names of the classes",
    "data.length": "the number of rows",
    "data.fingerprint": "the rows, their ids or their labels",
    "data.limit": "limit",
    "data.labels": "whether there are labels",
    "data.id_kind": "the kind of ids",
    "options.keep_logits": "keep_logits",
    "options.precision": "the precision",
    "options.tv_budget": "tv_budget",
}
_DIGESTS = ("model.sha256", "data.fingerprint")


def changes_in_words(begun: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return where two identities differ: in words, with what was and what is."""
    said = []
    for key, (old, new) in differences(dict(begun), dict(now)).items():
        words = _WORDS.get(key)
        if words is None:
            section, _, name = key.partition(".")
            words = {"data": "the preprocessing", "versions": f"the version of {name}"}.get(section, key)
        # Two digests tell a reader nothing.
        said.append(words if key in _DIGESTS else f"{words} ({_short(old)} then, {_short(new)} now)")
    return said


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def require_same_run(folder: RunFolder, now: Mapping[str, Any], source: Source, limit: int | None) -> None:
    """Raise unless model, options and the shape of the data are those of the run begun.

    A bad row that was mended changes the data's fingerprint, and a run may be given another end by ``limit=``; what is
    finished is compared row by row (`require_same_rows`).

    Raises:
        ResumeError: Names what changed; or the data do not say how many rows they have, and `limit` does not either.
    """
    begun: dict[str, Any] = {**folder.identity, "data": dict(folder.identity.get("data") or {})}
    current = {**now, "data": dict(now["data"])}
    other_end = begun["data"].get("limit") != current["data"]["limit"]
    for key in ("fingerprint", *(("limit", "length") if other_end else ())):
        begun["data"].pop(key, None)
        current["data"].pop(key, None)
    if changed := changes_in_words(begun, current):
        is_model = _WORDS["model.sha256"] in changed
        advice = " (a model that adds up arrays over its calls must be made anew)" if is_model else ""
        raise ResumeError(
            f"Resuming {folder.path}: the run was begun with something else: {'; '.join(changed)}. Give what it was begun "
            f"with{advice}, or begin anew with overwrite=True."
        )
    if source.length is not None and source.length < folder.position:
        raise ResumeError(
            f"Resuming {folder.path}: {folder.position} rows are finished, but the data end after {source.length} rows now. "
            "Give the data it was begun with, or begin anew with overwrite=True."
        )
    if source.length is None and limit is None and folder.position:
        raise ResumeError(
            f"Resuming {folder.path}: the data do not say how many rows they have, so that it could not be checked whether the "
            "rows that are left are all there. Say how many rows the run has with limit=…, or begin anew with "
            "overwrite=True."
        )


def require_same_model(folder: RunFolder, opened: OpenedModel, first: Batch) -> None:
    """Run the finished ones among the first rows again.

    Raises:
        ResumeError: They differ from what is stored, so that the model is another.
    """
    rows = folder.finished_rows()
    if rows is None:
        return
    finished = rows.read(0, min(len(first), rows.length), ("ids", "probs"))
    difference = describe_other_rows(opened, choose_resumed_runners(folder, opened), first, finished)
    if difference is not None:
        raise ResumeError(
            f"Resuming {folder.path}: the model gives other rows than those that are finished: {difference}. Give the model "
            "that the run was begun with, or begin anew with overwrite=True."
        )


def choose_resumed_runners(folder: RunFolder | None, opened: OpenedModel) -> Sequence[Runner]:
    """Return the runners of the rows that are left: the native one if it stepped in before, else those of `opened`."""
    if (
        folder is None
        or folder.switched_at is None
        or folder.position < folder.switched_at
        or opened.open_native is None
    ):
        return opened.runners
    return (opened.open_native(),)


def recorded_run(folder: RunFolder, run: RunOptions) -> tuple[RunOptions, BatchPlan]:
    """Return how a run is resumed: with the runner and the plan that it was begun with.

    Raises:
        StoreError: Its ``run.json`` was edited or damaged.
    """
    check_settings(folder.settings, folder.path)
    settings = folder.settings
    if run.runner not in ("auto", settings["runner"]):
        raise ResumeError(
            f"Resuming {folder.path}: the run was begun with the {settings['runner']} runner, and runner={run.runner!r} is asked "
            "for now. Leave runner= out, or begin anew with overwrite=True."
        )
    plan = plan_of_record({name: settings[name] for name in (*MOST, "spinning")})
    run = replace(run, runner=settings["runner"], batch_size=plan.batch_size, tuning=None)
    if run.device == "auto" and settings["device"].startswith("openvino"):
        # It was measured to be faster, and what was measured may be gone.
        run = replace(run, device=settings["device"])
    precision = _recorded_precision(settings)
    if precision is not None and run.may_lower_precision:
        is_lower = precision.choice in LOWER_PRECISIONS
        run = replace(run, precision=precision.choice, tv_budget=precision.tv_budget if is_lower else None)
    return run, plan


def resumed_model(folder: RunFolder, opened: OpenedModel) -> OpenedModel:
    """Return the opened model with what the first part of the run recorded of it.

    Raises:
        ResumeError: It is on another device, where rows are not the same in every bit.
    """
    settings, device = folder.settings, opened.runners[0].device
    if device != settings["device"]:
        raise ResumeError(
            f"the run was begun on {settings['device']}, and would now go on on {device}, where rows are not the same in every "
            f"bit. Say device={settings['device']!r}, or begin anew with overwrite=True."
        )
    precision = _recorded_precision(settings)
    now = None if opened.precision is None else opened.precision.sha256
    if precision is not None and now != precision.sha256:
        raise ResumeError(
            f"the run was begun in {precision.choice}, with a file whose digest was {precision.sha256}, and which cannot be made "
            f"again: now it is {now}. Begin anew with overwrite=True."
        )
    parity = None if settings["parity"] is None else ParityReport.from_dict(settings["parity"])
    return replace(
        opened, reason=settings["reason"], parity=opened.parity or parity, precision=precision or opened.precision
    )


def _recorded_precision(settings: Mapping[str, Any]) -> PrecisionReport | None:
    """Return how the precision was chosen; ``None`` if it was asked for, and in runs of older versions."""
    recorded = settings.get("precision")
    if recorded is None:
        return None
    report = PrecisionReport.from_dict(recorded)
    choice("precision", report.choice, PRECISIONS)
    return report


def check_settings(settings: Mapping[str, Any], path: Path) -> None:
    """Check what a run folder says of how it was begun, as arguments are checked.

    Raises:
        StoreError: Something that no run writes, so that the folder was edited or damaged.
    """
    try:
        if settings["runner"] not in ("onnx", "native"):
            raise OptionError(f"runner={settings['runner']!r} is not a choice")
        plan_of_record({name: settings[name] for name in (*MOST, "spinning")})
        if not isinstance(settings["device"], str) or not isinstance(settings["reason"], str | None):
            raise OptionError("device and reason are no texts")
        _recorded_precision(settings)
        if settings["parity"] is not None:
            ParityReport.from_dict(settings["parity"])
    except (OptionError, DataError, KeyError, TypeError, ValueError, AttributeError) as err:
        raise StoreError(
            f"Resuming {path}: its run.json is not as this version writes it ({first_line(err)}). It was edited or "
            "damaged; begin anew with overwrite=True."
        ) from err
