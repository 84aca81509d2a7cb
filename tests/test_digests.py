"""What tells one function or object from another: everything that it holds, the same in every process."""

from __future__ import annotations

import argparse
import collections
import functools
import subprocess
import sys
import threading
import types
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fo_onnx.digests import of_object

CONSTANT = 1.0


def told(value: Any) -> bytes:
    return b"|".join(of_object(value))


class Slots:
    __slots__ = ("scale",)

    def __init__(self, scale: float) -> None:
        self.scale = scale


@dataclass
class Config:
    scale: float
    inner: Any = None


class Wrapper:
    def __init__(self, function: Any, scale: float) -> None:
        functools.update_wrapper(self, function)
        self.function, self.scale = function, scale

    def __call__(self, x: Any) -> Any:
        return self.function(x) * self.scale


class WithMethod:
    def __init__(self, scale: float) -> None:
        self.held = Config(scale)

    def predict(self, x: Any) -> Any:
        return x * self.held.scale


def closing(scale: Any) -> Any:
    return lambda x: x * scale


def of_class(scale: float) -> Any:
    class Made:
        factor = scale

        def __call__(self, x: Any) -> Any:
            return x * self.factor

    return Made()


HOLDERS = {
    "plain": lambda v: v,
    "array": lambda v: np.full(3, v),
    "objects in an array": lambda v: np.array([None, v], dtype=object),
    "closure": closing,
    "closure over a dict": lambda v: closing({"a": [v]}),
    "default": lambda v: lambda x, scale=v: x * scale,
    "keyword default": lambda v: lambda x, *, scale=v: x * scale,
    "partial": lambda v: functools.partial(np.multiply, v),
    "method of an object": lambda v: WithMethod(v).predict,
    "slots": lambda v: closing(Slots(v)),
    "dataclass": lambda v: closing(Config(1, Config(v))),
    "namespace": lambda v: closing(types.SimpleNamespace(scale=v)),
    "arguments": lambda v: closing(argparse.Namespace(scale=v)),
    "deque": lambda v: closing(collections.deque([v])),
    "set": lambda v: closing({v, 2.0}),
    "order of a dict": lambda v: closing({"a": 1, "b": 2} if v == 1 else {"b": 2, "a": 1}),
    "wrapper": lambda v: Wrapper(len, v),
    "wrapped": lambda v: Wrapper(closing(v), 1.0),
    "class attribute": of_class,
    "object of a library": lambda v: closing(np.poly1d([v, 1.0])),
    "function in a function": lambda v: closing(closing(v)),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_what_is_held_is_told(name: str) -> None:
    make = HOLDERS[name]
    assert told(make(1.0)) == told(make(1.0))
    assert told(make(1.0)) != told(make(1.5))


def test_globals_that_the_code_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def function(x: float) -> float:
        return x * CONSTANT

    def through_a_module(x: float) -> float:
        return x * mine.inner.VALUE

    before = told(function)
    monkeypatch.setitem(globals(), "CONSTANT", 2.0)
    assert told(function) != before

    mine, inner = types.ModuleType("mine"), types.ModuleType("mine.inner")
    mine.inner, inner.VALUE = inner, 1.0
    monkeypatch.setitem(globals(), "mine", mine)
    through = types.FunctionType(compile("lambda x: x * mine.inner.VALUE", "m", "eval").co_consts[0], {"mine": mine})
    before = told(through)
    inner.VALUE = 2.0
    assert told(through) != before
    assert told(through_a_module)


def test_cycles_end() -> None:
    one, other = Config(1), Config(2)
    one.inner, other.inner = other, one
    assert told(one) != told(other)
    items: list[Any] = []
    items.append(items)
    assert told(items)


def test_what_has_no_content_is_passed_over() -> None:
    assert told(closing(threading.Lock())) == told(closing(threading.Lock()))


def test_running_does_not_change_a_cached_property() -> None:
    class Lazy:
        def __init__(self) -> None:
            self.scale = 2.0

        @functools.cached_property
        def table(self) -> np.ndarray:
            return np.arange(3) * self.scale

    lazy = Lazy()
    before = told(lazy)
    assert lazy.table[1] == 2
    assert told(lazy) == before


def test_the_same_in_another_process() -> None:
    program = (
        "import sys, hashlib; sys.path.insert(0, {folder!r}); import test_digests as t\n"
        "print([hashlib.sha256(t.told(make(1.0))).hexdigest() for make in t.HOLDERS.values()])"
    ).format(folder=__file__.rpartition("/")[0])
    runs = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1
