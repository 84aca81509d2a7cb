"""Leaves a module as a call finds it: what the call writes to or replaces is put back.

A model may count its calls, move its statistics or keep a state in evaluation mode, too. A run leaves it as it was, and
gives a row the same distribution whichever batch it is in. Random generators go on: a model that samples would draw the
same numbers for each batch otherwise.
"""

from __future__ import annotations

import contextlib
import logging
import operator
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

log = logging.getLogger("fo_onnx_torch")
LARGE_BYTES = 1 << 20
"""Buffers from this size on, and all on other devices, are copied for the first call, and then if a call wrote to them."""
LARGE_CONTAINER = 1000
"""Lists and dicts from this length on are tables (a vocabulary), not a state, and are not looked into."""
_DICTS = (dict, OrderedDict, defaultdict, Counter)
_CONTAINERS = (*_DICTS, list, set, deque)
_TENSORS = (torch.Tensor, torch.nn.Parameter)
_STATES = frozenset((*_CONTAINERS, *_TENSORS, tuple))
_BOOKKEEPING = frozenset(vars(torch.nn.Module())) - {"_parameters", "_buffers"}
_SCRIPT_VALUES = (bool, int, float, str, type(None), torch.Tensor)


class StateKeeper:
    """Puts a module's state back after each call: attributes, what lists and dicts in them hold, and values of buffers.

    Weights are not copied, except those of parts that clip them in their forward (``max_norm=`` of an embedding).

    Attributes:
        replaces_memory: Whether a call gave a weight or a buffer other memory (``weight.data = …``).
    """

    def __init__(self) -> None:
        self.replaces_memory = False
        self._unwritten: dict[int, torch.Tensor] = {}

    @contextlib.contextmanager
    def keep(self, module: torch.nn.Module) -> Iterator[None]:
        """Put the state of `module` back when the context ends, also on an error."""
        snapshot = Snapshot(module, self._unwritten)
        try:
            yield
        finally:
            self.replaces_memory |= snapshot.has_other_memory()
            self._unwritten = snapshot.put_back()


class Snapshot:
    """The state of a module and its parts at one time.

    Args:
        module: The module.
        unwritten: Tensors by their ``id`` that are not copied, since that costs and no call has written to them.
        weights: Whether the values of all weights belong to the state.
    """

    def __init__(
        self, module: torch.nn.Module, unwritten: Mapping[int, torch.Tensor] | None = None, *, weights: bool = False
    ) -> None:
        self._unwritten, self._weights = unwritten or {}, weights
        self._containers: dict[int, tuple[Any, Any]] = {}
        self._tensors: dict[int, _TensorState] = {}
        self._scripts: list[tuple[Any, dict[str, Any]]] = []
        self._is_lazy = False
        for part in module.modules():
            # The first call gives it its weights and another class, which belong together.
            self._is_lazy |= isinstance(part, torch.nn.modules.lazy.LazyModuleMixin)
            attributes = vars(part)
            if isinstance(part, torch.jit.ScriptModule):
                self._take_script(part)
            self._containers[id(attributes)] = (attributes, attributes.copy())
            clips_weights = weights or attributes.get("max_norm") is not None
            for name, value in attributes.items():
                if type(value) in _STATES and name not in _BOOKKEEPING:
                    self._take(value, clips_weights)

    def has_other_memory(self) -> bool:
        """Return whether a tensor has other memory than it had."""
        return any(s.tensor.data_ptr() != s.address for s in self._tensors.values())

    def put_back(self) -> dict[int, torch.Tensor]:
        """Put the state back, and return the costly tensors that were not written to, by their ``id``."""
        if self._is_lazy:
            return {}
        for container, before in self._containers.values():
            _refill(container, before)
        for compiled, values in self._scripts:
            for name, value in values.items():
                if compiled.getattr(name) is not value:
                    compiled.setattr(name, value)
        written = {id(s.tensor) for s in self._tensors.values() if s.put_back(by_value=self._weights)}
        tensors = (s.tensor for s in self._tensors.values())
        return {id(t): t for t in tensors if id(t) not in written and _is_costly(t)}

    def _take(self, value: Any, clips_weights: bool) -> None:
        """Add a tensor, or a container and what it holds."""
        if type(value) in _TENSORS:
            if id(value) not in self._tensors and _is_plain(value):
                is_weight = type(value) is torch.nn.Parameter
                is_copied = clips_weights if is_weight else self._unwritten.get(id(value)) is not value
                self._tensors[id(value)] = _TensorState.of(value, is_copied=is_copied, is_watched=not is_weight)
        elif type(value) in _CONTAINERS:
            if id(value) not in self._containers and len(value) < LARGE_CONTAINER:
                self._containers[id(value)] = (value, value.copy())
                for item in value.values() if type(value) in _DICTS else value:
                    if type(item) in _STATES:
                        self._take(item, clips_weights)
        elif len(value) < LARGE_CONTAINER:
            for item in value:
                if type(item) in _STATES:
                    self._take(item, clips_weights)

    def _take_script(self, part: Any) -> None:
        """Add the attributes of a ScriptModule, which are not Python's."""
        compiled = part._c
        kind: Any = torch._C.ConcreteModuleType.from_jit_type(compiled._type())
        values = {name: compiled.getattr(name) for name in kind.get_attributes()}
        values = {name: value for name, value in values.items() if type(value) in _SCRIPT_VALUES}
        self._scripts.append((compiled, values))
        for value in values.values():
            if type(value) in _TENSORS:
                self._take(value, False)


class _TensorState(NamedTuple):
    """A tensor, and the memory that it had; a copy of its values, unless they are expected to stay."""

    tensor: torch.Tensor
    memory: torch.Tensor
    address: int
    version: int
    copy: torch.Tensor | None
    is_watched: bool

    @classmethod
    def of(cls, tensor: torch.Tensor, *, is_copied: bool, is_watched: bool) -> _TensorState:
        # Of .data, writes do not count as changes for gradients that are still to be computed.
        memory = tensor.data
        copy = memory.clone() if is_copied else None
        return cls(tensor, memory, memory.data_ptr(), tensor._version, copy, is_watched)

    def put_back(self, *, by_value: bool) -> bool:
        """Put memory and values back; return whether the tensor was written to."""
        if self.tensor.data_ptr() != self.address:
            self.tensor.data = self.memory
        is_written = self.tensor._version != self.version
        if self.copy is None:
            if is_written and self.is_watched:
                log.warning(
                    "a call of the model has written to a buffer of shape %s, which its first call had not: there is no copy "
                    "of it, and it cannot be put back.",
                    tuple(self.tensor.shape),
                )
            return is_written
        # Writes through .data leave the version as it is; on other devices a look at the values would wait for them.
        if is_written or ((by_value or self.tensor.is_cpu) and not torch.equal(self.memory, self.copy)):
            self.memory.copy_(self.copy)
            return True
        return False


def _is_plain(tensor: torch.Tensor) -> bool:
    """Return whether a tensor has memory of its own that can be copied and written to."""
    return (
        tensor.layout is torch.strided
        and not (tensor.is_quantized or tensor.is_nested or tensor.is_meta or tensor.is_inference())
        and tensor.data_ptr() != 0
    )


def _is_costly(tensor: torch.Tensor) -> bool:
    """Return whether a copy for each call would be noticed; on other devices each copy is a launch of its own."""
    return tensor.nbytes >= LARGE_BYTES or not tensor.is_cpu


def _refill(container: Any, before: Any) -> None:
    """Give a list, dict or set back what it held, if that has changed."""
    if type(container) is set:
        if container != before:
            container.clear()
            container.update(before)
        return
    # By identity: what is equal may be another tensor.
    is_same = len(container) == len(before) and all(map(operator.is_, container, before))
    if type(container) in _DICTS:
        if is_same and all(map(operator.is_, container.values(), before.values())):
            return
        for key in [k for k in container if k not in before]:
            del container[key]
        if len(container) < len(before):
            container.clear()  # so that its order is as before, too
        for key, value in before.items():
            container[key] = value
    elif not is_same:
        container.clear()
        container.extend(before)
