"""torch models as modules of one form, run in evaluation mode and left as they were before."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from fo_onnx.contracts.batch import Inputs
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.errors import ModelError, OutputError, first_line
from fo_onnx.plugin_kit.calling import Call, pick_output

from .class_names import class_names_of
from .detect import call_of, captured_values, unwrap
from .evaluation import evaluation_mode
from .state import StateKeeper
from .tensors import to_tensor

log = logging.getLogger("fo_onnx_torch")


class FunctionModule(torch.nn.Module):
    """A function over tensors as a module; the modules that it has at hand are registered, so that their weights are seen."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.captured = torch.nn.ModuleList(m for m in captured_values(function) if isinstance(m, torch.nn.Module))
        # Neither has a mode of its own; what they hold has.
        self.training = self.captured.training = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the function returns."""
        return self.function(*args, **kwargs)


class FlatModule(torch.nn.Module):
    """A model with flat tensors in and the one tensor with class scores out, which is run natively and exported alike.

    Args:
        model: A torch model.
        example: Inputs, for their names.
        options: The model's name.
        output: The output's name, and the caller's names of the classes.

    Attributes:
        fixed_rows: The number of rows that the model takes at a time, if that is built into it. Others are run in such parts.

    Raises:
        ModelError: Its weights have no values.
    """

    def __init__(self, model: Any, example: Inputs, options: ModelOptions, output: OutputOptions) -> None:
        super().__init__()
        # Has no mode of its own, so that it does not count as a part in training mode.
        self.training = False
        self.model = as_module(model)
        self.model_name = options.model_name or type(self.model).__name__
        if device_of(self.model).type == "meta":
            raise ModelError(
                f"{self.model_name} has weights without values, on the device 'meta'. Load them with "
                "load_state_dict(…, assign=True) first."
            )
        self.fixed_rows = fixed_rows_of(self.model)
        # The caller's names take their place.
        self.class_names = class_names_of(self.model) if output.class_names is None else None
        self._output_name = output.output_name
        self.keeper = StateKeeper()
        # Of parts of a batch: one keeper cannot know what two nested calls wrote to.
        self._part_keeper = StateKeeper()
        self._compiled: Callable[..., Any] | None = None
        self.call = call_of(model, list(example), lambda call: self._runs(call, example))

    def run_compiled(self, compiled: Callable[..., Any]) -> None:
        """Call a compiled form of the model in its place."""
        self._compiled = functools.partial(compiled)  # wrapped, so that it is no part of this module

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Return the raw output (n, …).

        Raises:
            OutputError: It gives no tensor, or not one row per sample for the rows that are built into it.
        """
        size = self.fixed_rows
        # A free number of rows must not be asked for: where the model is traced, it would become a fixed one.
        return self._run(tensors) if size is None or len(tensors[0]) == size else self._run_parts(tensors, size)

    def _run(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        args, kwargs = self.call.arguments(tensors)
        returned = (self._compiled or self.model)(*args, **kwargs)
        raw: torch.Tensor = pick_output(returned, self._output_name, self.model_name, torch.is_tensor)
        return raw

    def _run_parts(self, tensors: Sequence[torch.Tensor], size: int) -> torch.Tensor:
        """Run a batch in parts of `size` rows, the last one filled up with the last row."""
        parts = []
        for start in range(0, len(tensors[0]), size):
            part = [fill_rows(t[start : start + size], size) for t in tensors]
            # Each part starts from the model's own state, as each batch does.
            with self._part_keeper.keep(self.model):
                # The model may keep the tensor and write the next part into it.
                raw = self._run(part).clone()
            if raw.shape[:1] != (size,) and size == 1:
                raw = raw[None]  # a model that squeezes
            if raw.shape[:1] != (size,):
                raise OutputError(
                    f"{self.model_name} gives an output of shape {tuple(raw.shape)} for {size} rows, which are built into it; one row "
                    f"per sample was expected, shape ({size}, …). Keep the batch axis when the model is exported."
                )
            parts.append(raw)
        return torch.cat(parts)[: len(tensors[0])]

    def to_tensors(self, inputs: Inputs, dtypes: Sequence[torch.dtype] | None = None) -> list[torch.Tensor]:
        """Return inputs as tensors on the model's device, in their own dtypes or in those given."""
        device = device_of(self)
        tensors = [to_tensor(array, device) for array in self.call.arrays(inputs)]
        # A copy, always: the tensors share the caller's memory, and a model may work in place.
        return [t.to(d, copy=True) for t, d in zip(tensors, dtypes or [t.dtype for t in tensors], strict=True)]

    def _runs(self, call: Call, example: Inputs) -> bool:
        """Return whether the model takes the first rows, with floats in the dtype of its weights, in this form."""
        self.call = call
        dtype = next((t.dtype for t in state_of(self) if t.is_floating_point()), torch.float32)
        tensors = self.to_tensors({name: array[:2] for name, array in example.items()})
        try:
            self.run([t.to(dtype) if t.is_floating_point() else t for t in tensors])
        except Exception as err:
            log.debug("%s takes no %s: %s", self.model_name, call.form, first_line(err))
            return False
        return True

    def run(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the raw output (n, …) in evaluation mode; the model is left as it was found, and nothing is compiled."""
        with self.left_as_found(), _without_compiling():
            raw: torch.Tensor = self(*tensors)
            # A copy, since it may be a buffer, which is put back.
            return raw.clone()

    @contextlib.contextmanager
    def left_as_found(self) -> Iterator[None]:
        """Put the model into evaluation mode, without gradients; put its mode and state back when the context ends."""
        # Not inference_mode(): what the model keeps of a call must be usable in a training afterwards.
        with evaluation_mode(self.model), self.keeper.keep(self.model), torch.no_grad():
            yield


def _without_compiling() -> AbstractContextManager[None]:
    """Let what ``torch.compile`` returned run as it is compiled already, and eagerly for inputs that it was not compiled for.

    To compile takes 10 to 60 s for each shape, longer than most runs do.
    """
    is_in_use = "torch._dynamo" in sys.modules  # torch.compile imports it, which takes a second
    return torch.compiler.set_stance("eager_on_recompile") if is_in_use else contextlib.nullcontext()


def as_module(model: Any) -> torch.nn.Module:
    """Return `model` as a module: unwrapped from ``torch.compile``, of an exported program, or a function's."""
    model = unwrap(model)
    if isinstance(model, torch.export.ExportedProgram):
        model = model.module()
    return model if isinstance(model, torch.nn.Module) else FunctionModule(model)


def fixed_rows_of(module: torch.nn.Module) -> int | None:
    """Return the number of rows that a program of torch.export takes, if it was exported without a free batch axis."""
    if not isinstance(module, torch.fx.GraphModule):
        return None
    inputs = (n.meta.get("val") for n in module.graph.nodes if n.op == "placeholder")
    sizes = (t.shape[0] for t in inputs if isinstance(t, torch.Tensor) and t.ndim)
    fixed = {size for size in sizes if isinstance(size, int)}  # a free one is a symbol
    return fixed.pop() if len(fixed) == 1 else None


def fill_rows(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """Return a tensor with `rows` rows: copies of its last row are appended to fewer."""
    missing = rows - len(tensor)
    return tensor if missing <= 0 else torch.cat([tensor, tensor[-1:].expand(missing, *tensor.shape[1:])])


def device_of(module: torch.nn.Module) -> torch.device:
    """Return the device of a module's weights: of those that have values, if there are some."""
    placed = next((t.device for t in state_of(module) if not t.is_meta), None)
    return placed or next((t.device for t in state_of(module)), torch.device("cpu"))


def weight_bytes(module: torch.nn.Module) -> int:
    """Return the size of a module's weights."""
    return sum(t.numel() * t.element_size() for t in state_of(module))


def state_of(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Yield a module's parameters and buffers."""
    yield from module.parameters()
    yield from module.buffers()
