"""The arguments of the public verbs, as they travel inside: five frozen dataclasses.

The verbs take flat keyword arguments; they are gathered here once, checked where they can be checked without a model
or data, and handed on whole.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar, cast

from ..errors import OptionError
from .batch_plan import plan_of_record
from .spec import LOGIT_KINDS, OUTPUT_KINDS, InputSignature

OnError = Literal["fail", "skip", "record"]
RUNNERS = ("auto", "onnx", "native")
FLOAT_SHARES = {
    "int8": 0.0, "int8-edges": 0.0, "int8-layers": 0.0, "int8-half": 0.5, "int8-quarter": 0.75, "int8-eighth": 0.875,
}  # fmt: skip
"""Which share of a net's layers, from the input on, stays in float32; `fo_onnx.conversion.quantize` says what else differs."""
SIGNED = "-signed"
LOWER_PRECISIONS = (*FLOAT_SHARES, *(f"{name}{SIGNED}" for name in FLOAT_SHARES), "bf16")
"""What ``precision="auto"`` tries beside TF32, and what pins its choice."""
PRECISIONS = ("float32", "tf32", "auto", *LOWER_PRECISIONS)
DEFAULT_TV_BUDGET = 0.01
Options = TypeVar("Options")
Function = TypeVar("Function", bound=Callable[..., Any])


def choice(argument: str, value: Any, known: Sequence[str]) -> None:
    """Raise an `OptionError` that lists `known` unless `value` is one of them."""
    if value not in known:
        raise OptionError(f"{argument}={value!r} is not a choice; the choices are {', '.join(map(repr, known))}.")


def positive_int(argument: str, value: Any, *, least: int = 1) -> None:
    """Raise an `OptionError` unless `value` is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionError(f"{argument}={value!r} is not usable: an integer of at least {least} was expected.")


def check_timeout(timeout_s: Any) -> None:
    """Raise an `OptionError` unless it is ``None`` or a number of seconds above 0."""
    if timeout_s is None:
        return
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, Real) or not float(timeout_s) > 0:
        raise OptionError(f"timeout_s={timeout_s!r} is not usable: seconds above 0 were expected.")


@dataclass(frozen=True)
class DataOptions:
    """How rows are read.

    Attributes:
        labels: One class per row, given beside the data: integers, or names of classes; ``False`` leaves those that the
            data hold out.
        ids: One id per row, integers or text, given beside the data. The default is the row's position.
        input_getter: Takes an element of the data (a sample, or a loader's batch) and returns the model's input.
        transform: Takes one sample's input and returns what the model gets.
        num_workers: Threads that read rows ahead; with 0 one thread reads ahead where the source is slow.
        on_error: What happens to a row that cannot be read or run: ``"fail"``, ``"skip"`` or ``"record"``.
        limit: Only the first `limit` rows are taken.
        signature: The model's inputs, where they are known.
    """

    labels: Any = None
    ids: Any = None
    input_getter: Callable[[Any], Any] | None = None
    transform: Callable[[Any], Any] | None = None
    num_workers: int = 0
    on_error: OnError = "fail"
    limit: int | None = None
    signature: InputSignature | None = None

    def __post_init__(self) -> None:
        choice("on_error", self.on_error, ("fail", "skip", "record"))
        positive_int("num_workers", self.num_workers, least=0)
        if self.limit is not None:
            positive_int("limit", self.limit, least=0)


@dataclass(frozen=True)
class ModelOptions:
    """How a model is opened and converted.

    Attributes:
        framework: The framework's name if it is not to be detected from the model.
        params: Parameters that the model takes beside its inputs (functional frameworks).
        model_name: A name for the model in files and messages.
        opset: The ONNX operator set of an exported file.
        tolerance: The largest total variation between the model and its export.
        trust: Whether code from the model's file may run (unpickling).
    """

    framework: str | None = None
    params: Any = None
    model_name: str | None = None
    opset: int = 18
    tolerance: float = 1e-4
    trust: bool = False

    def __post_init__(self) -> None:
        positive_int("opset", self.opset, least=13)
        if not (isinstance(self.tolerance, int | float) and 0 < self.tolerance <= 1):
            raise OptionError(f"tolerance={self.tolerance!r} is not usable: a total variation in (0, 1] was expected.")


@dataclass(frozen=True)
class OutputOptions:
    """What the model's output means.

    Attributes:
        output: One of `fo_onnx.contracts.spec.OUTPUT_KINDS`, or ``"auto"``: detected from the graph or from a calibration batch.
        output_name: Which output is meant where a model has several.
        temperature: T of softmax(z / T).
        keep_logits: Whether logits are kept beside the distributions.
        output_transform: Takes the raw output as a numpy array and returns distributions (n, k); replaces the head.
        class_names: One name per class, in the order of the columns.
    """

    output: str = "auto"
    output_name: str | None = None
    temperature: float = 1.0
    keep_logits: bool = False
    output_transform: Callable[[Any], Any] | None = None
    class_names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        choice("output", self.output, ("auto", *OUTPUT_KINDS))
        t = self.temperature
        if isinstance(t, bool) or not isinstance(t, int | float) or not math.isfinite(t) or t <= 0:
            raise OptionError(f"temperature={t!r} is not usable: a finite number above 0 was expected.")
        if t != 1 and self.output in set(OUTPUT_KINDS) - set(LOGIT_KINDS):
            raise OptionError(
                f"temperature={t:g} has no meaning for output={self.output!r}: a temperature divides logits. "
                "Export the model before its softmax, or leave the temperature out."
            )
        if self.output_transform is not None and (t != 1 or self.output != "auto" or self.keep_logits):
            raise OptionError(
                "output_transform= replaces the probability head, so that output=, temperature= and keep_logits= "
                "cannot be given beside it."
            )
        if self.class_names is not None:
            names = tuple(self.class_names)
            if isinstance(self.class_names, str) or not all(isinstance(n, str) for n in names):
                raise OptionError("class_names must be a sequence of text, one name per class.")
            doubled = sorted({n for n in names if names.count(n) > 1})
            if doubled:
                raise OptionError(f"class_names holds {', '.join(map(repr, doubled))} more than once.")
            object.__setattr__(self, "class_names", names)


@dataclass(frozen=True)
class RunOptions:
    """How rows are run.

    Attributes:
        device: One device, or a list of them.
        runner: ``"auto"`` (ONNX; native for small jobs, if that is faster, or if ONNX fails), ``"onnx"`` or ``"native"``.
        batch_size: Rows per run, or ``"auto"``: by rule for short runs, else the fastest of those measured.
        tuning: How an earlier run was cut and spread: ``meta["engine"]["tuning"]`` of its result, or the result's path.
        precision: ``"float32"``, ``"tf32"`` where the device has it, ``"auto"`` (the fastest within `tv_budget`), or one of
            `LOWER_PRECISIONS`.
        tv_budget: The 99th percentile of total variation from float32 that a lower precision may have (0.01 if it is not
            given); ``None`` if none may be taken.
        max_errors: More bad rows than this stop the run; ``None`` sets no bound.
        timeout_s: Seconds after which the run is stopped and its finished rows are kept.
        progress: Whether a bar and the steps before it are shown; ``None`` shows them where standard error is a terminal.
    """

    device: str | Sequence[str] = "auto"
    runner: str = "auto"
    batch_size: int | Literal["auto"] = "auto"
    tuning: Mapping[str, Any] | str | os.PathLike[str] | None = None
    precision: str = "float32"
    tv_budget: float | None = None
    max_errors: int | None = None
    timeout_s: float | None = None
    progress: bool | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.device, str):
            names = tuple(self.device) if isinstance(self.device, Iterable) else (self.device,)
            if not names or not all(isinstance(n, str) for n in names):
                raise OptionError(
                    f"device={self.device!r} names no device: text like 'cpu' or 'cuda:1', or a list of such, was expected."
                )
            object.__setattr__(self, "device", names)
        choice("runner", self.runner, RUNNERS)
        choice("precision", self.precision, PRECISIONS)
        self._check_precision()
        if self.batch_size != "auto":
            positive_int("batch_size", self.batch_size)
        if self.tuning is not None:
            if self.batch_size != "auto":
                raise OptionError("tuning= holds the batch size, so that batch_size= cannot be given beside it.")
            if not isinstance(self.tuning, str | os.PathLike):
                plan_of_record(self.tuning)
                object.__setattr__(self, "tuning", dict(self.tuning))
        if self.max_errors is not None:
            positive_int("max_errors", self.max_errors, least=0)
        check_timeout(self.timeout_s)

    @property
    def may_lower_precision(self) -> bool:
        """Return whether rows may differ from the float32 ones by what `tv_budget` says."""
        return self.precision == "auto" or self.precision in LOWER_PRECISIONS

    def _check_precision(self) -> None:
        if self.tv_budget is None and self.may_lower_precision:
            object.__setattr__(self, "tv_budget", DEFAULT_TV_BUDGET)
        elif self.tv_budget is not None:
            budget = self.tv_budget
            if isinstance(budget, bool) or not isinstance(budget, int | float) or not 0 < budget <= 1:
                raise OptionError(f"tv_budget={budget!r} is not usable: a total variation in (0, 1] was expected.")
            if not self.may_lower_precision:
                raise OptionError(
                    f"tv_budget={budget:g} was given with precision={self.precision!r}, whose rows may not differ by it; say "
                    "precision='auto', or leave tv_budget= out."
                )
        if self.may_lower_precision and self.runner == "native":
            raise OptionError(
                f"precision={self.precision!r} was asked for with runner='native', but only ONNX files are run in a lower "
                "precision; leave runner= or precision= out."
            )


@dataclass(frozen=True)
class DestinationOptions:
    """Where a run's rows go.

    Attributes:
        out: A file or a folder; ``None`` keeps them in memory.
        overwrite: Whether what is there may be replaced.
        resume: Whether an unfinished run there is resumed.
        meta: The caller's own record.
    """

    out: Path | None = None
    overwrite: bool = False
    resume: bool = False
    meta: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.out is not None:
            if not isinstance(self.out, str | os.PathLike):
                raise OptionError(f"out={self.out!r} is no path: text or a pathlib.Path was expected.")
            object.__setattr__(self, "out", Path(self.out).expanduser())
        if self.resume and (self.overwrite or self.out is None):
            missing = "out=" if self.out is None else "overwrite=False"
            raise OptionError(f"resume=True continues the run in out=, so that it needs {missing}.")


# Arguments, once for all who pass them on --------------------------------------------------------------------------


class ModelArguments(TypedDict, total=False):
    """How a model is opened: the fields of `ModelOptions` that `Engine`, `generate` and `export` take."""

    framework: str | None
    params: Any
    model_name: str | None
    tolerance: float
    trust: bool


class OutputArguments(TypedDict, total=False):
    """What a model's output means: the fields of `OutputOptions`."""

    output: str
    output_name: str | None
    temperature: float
    keep_logits: bool
    output_transform: Callable[[Any], Any] | None
    class_names: Sequence[str] | None


class ExportArguments(ModelArguments, total=False):
    """What `fo_onnx.export` takes beside the model, the example and the path."""

    output: str
    output_name: str | None
    temperature: float
    class_names: Sequence[str] | None
    opset: int


class EngineArguments(ModelArguments, OutputArguments, total=False):
    """What `fo_onnx.Engine` takes: how a model is opened and run."""

    device: str | Sequence[str]
    runner: str
    batch_size: int | Literal["auto"]
    tuning: Mapping[str, Any] | str | os.PathLike[str] | None
    precision: str
    tv_budget: float | None


class DatasetArguments(TypedDict, total=False):
    """What `fo_onnx.Engine.generate` takes: the rows, where they go, and the limits of the run."""

    labels: Any
    ids: Any
    input_getter: Callable[[Any], Any] | None
    transform: Callable[[Any], Any] | None
    num_workers: int
    on_error: OnError
    limit: int | None
    out: str | os.PathLike[str] | None
    overwrite: bool
    resume: bool
    meta: dict[str, Any] | None
    max_errors: int | None
    timeout_s: float | None
    progress: bool | None


class GenerateArguments(EngineArguments, DatasetArguments, total=False):
    """What `fo_onnx.generate` takes beside the model and the data."""


def select_options(kind: type[Options], arguments: Mapping[str, Any], **more: Any) -> Options:
    """Make a dataclass of options of those arguments that are fields of it.

    Args:
        kind: The dataclass, which checks its values.
        arguments: Arguments by name, of which others are left.
        more: Further fields.

    Raises:
        OptionError: A value is no valid choice.
    """
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in arguments.items() if name in names}, **more)


def split_arguments(arguments: GenerateArguments) -> tuple[EngineArguments, DatasetArguments]:
    """Return the arguments that `fo_onnx.Engine` takes, and those that its `generate` takes."""
    of_engine: Any = {n: value for n, value in arguments.items() if n in EngineArguments.__annotations__}
    of_dataset: Any = {n: value for n, value in arguments.items() if n in DatasetArguments.__annotations__}
    return of_engine, of_dataset


def declare_arguments(kind: type) -> Callable[[Function], Function]:
    """Decorate a function that takes ``**arguments``: its signature shows them by name, with their defaults.

    As in Python, an argument that it does not have is a `TypeError`.

    Args:
        kind: The `TypedDict` of the arguments.
    """
    of_all = (ModelOptions, OutputOptions, RunOptions, DataOptions, DestinationOptions)
    defaults = {field.name: field.default for options in of_all for field in fields(options)}

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        shown = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=annotation)
            for name, annotation in kind.__annotations__.items()
        ]
        known = [p.name for p in (*own, *shown)]

        @functools.wraps(function)
        def call(*positional: Any, **arguments: Any) -> Any:
            for name in arguments:
                if name not in known:
                    close = difflib.get_close_matches(name, known, 1)
                    hint = f" Did you mean {close[0]!r}?" if close else ""
                    shown_name = function.__qualname__.removesuffix(".__init__")
                    raise TypeError(f"{shown_name}() got an unexpected keyword argument {name!r}.{hint}")
            return function(*positional, **arguments)

        call.__signature__ = signature.replace(parameters=[*own, *shown])  # type: ignore[attr-defined]
        return cast("Function", call)

    return decorate
