"""What tells one function or object from another: everything that it holds, the same in every process."""

from __future__ import annotations

import argparse
import collections
import enum
import functools
import math
import operator
import re
import subprocess
import sys
import threading
import types
from dataclasses import dataclass
from pathlib import Path
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


class PrivateSlots:
    __slots__ = ("__scale",)

    def __init__(self, scale: float) -> None:
        self.__scale = scale


class Row(list):  # type: ignore[type-arg]
    pass


class Doubled(float):
    def __init__(self, value: float) -> None:
        self.twice = 2 * value


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Hashed:
    """Equal to nothing else, so that sets order it by its address."""

    def __init__(self, scale: float, *others: Any) -> None:
        self.scale, self.others = scale, others


def attributed(value: Any) -> Any:
    row = Row([1])
    row.scale = value  # type: ignore[attr-defined]
    return row


def with_code(text: str, kind: str = "") -> Any:
    space: dict[str, Any] = {"__name__": "user", "functools": functools}
    exec(f"class Made({kind}):\n    {text}\n", space)
    return space["Made"]()


def nested(value: Any, depth: int = 3000) -> Any:
    return functools.reduce(lambda inner, _: [inner], range(depth), [value])


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
    "where one item ends": lambda v: [1, 23] if v == 1 else [12, 3],
    "where one list ends": lambda v: [1, [2]] if v == 1 else [1, [], 2],
    "names of arguments": lambda v: (lambda a, b: a - b) if v == 1 else (lambda b, a: b - a),
    "kinds of arguments": lambda v: (lambda a, b: a - b) if v == 1 else (lambda a, *, b: a - b),
    "private slots": PrivateSlots,
    "attribute of a list": attributed,
    "attribute of a number": lambda v: Doubled(v),
    "code of a list's class": lambda v: with_code(f"def __call__(self, x): return x * {v}", "list"),
    "a method that something wraps": lambda v: with_code(
        f"__call__ = functools.partialmethod(lambda self, x: x * {v})"
    ),
    "property": lambda v: with_code(f"scale = property(lambda self: {v})"),
    "class method": lambda v: with_code(f"scale = classmethod(lambda cls: {v})"),
    "builtin function": lambda v: closing(math.sinh if v == 1 else math.tanh),
    "ufunc": lambda v: closing(np.sinh if v == 1 else np.tanh),
    "function of numpy": lambda v: closing(np.dot if v == 1 else np.inner),
    "method of a builtin": lambda v: closing([v].index),
    "item getter": lambda v: closing(operator.itemgetter(v)),
    "bytearray": lambda v: bytearray([int(4 * v)]),
    "random numbers": lambda v: np.random.default_rng(int(4 * v)),
    "enum": lambda v: closing(Level.LOW if v == 1 else Level.HIGH),
    "pattern": lambda v: closing(re.compile("a" * 500 + str(v))),
    "rows with objects": lambda v: np.array([(1, [v])], dtype=[("a", "i4"), ("b", object)]),
    "deep lists": nested,
    "deep objects": lambda v: functools.reduce(lambda inner, _: Config(1, inner), range(3000), v),
    "set of objects": lambda v: closing({Hashed(v), Hashed(3.0), Hashed(4.0)}),
    "sets within sets": lambda v: closing(frozenset({frozenset({Hashed(v)}), frozenset({Hashed(2.0), Hashed(5.0)})})),
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


def test_cycles_through_sets_end() -> None:
    nodes = [Hashed(float(i)) for i in range(40)]
    for node in nodes:
        node.others = set(nodes)
    other = Hashed(0.5)
    other.others = {other}
    assert told(nodes[0])
    assert told(other) == told(other)


def test_two_functions_take_other_values_of_one_module(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = types.ModuleType("settings")
    settings.ONE, settings.TWO = 1.0, 1.0  # type: ignore[attr-defined]
    space = {"settings": settings, "__name__": "user"}
    exec("def inner(x): return x * settings.TWO\ndef outer(x): return inner(x) * settings.ONE", space)
    before = told(space["outer"])
    settings.TWO = 2.0  # type: ignore[attr-defined]
    assert told(space["outer"]) != before


@pytest.mark.parametrize(
    "text",
    [
        "def f(x): m = settings; return x * m.ONE",
        "def f(x, m=settings): return x * m.ONE",
        "def f(x, *, m=settings): return x * m.ONE",
        "def made(m):\n    def f(x): return x * m.ONE\n    return f\nf = made(settings)",
    ],
)
def test_a_module_by_another_name(text: str) -> None:
    settings = types.ModuleType("settings")
    settings.ONE = 1.0  # type: ignore[attr-defined]
    space = {"settings": settings, "__name__": "user"}
    exec(text, space)
    before = told(space["f"])
    settings.ONE = 2.0  # type: ignore[attr-defined]
    assert told(space["f"]) != before


def test_what_a_function_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_numbers.py").write_text("VALUE = 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def function(x: float) -> float:
        from users_numbers import VALUE  # type: ignore[import-not-found]

        return float(x * VALUE)

    before = told(function)
    assert function(2.0) == 2.0
    assert told(function) == before
    monkeypatch.setattr("users_numbers.VALUE", 2.0)
    assert told(function) != before


def test_a_large_array_is_told_to_its_end() -> None:
    large = np.zeros(5_000_000)
    before = told(large)
    large[-1] = 1e-9
    assert told(large) != before


def test_equal_tuples_count_the_same_whether_they_are_one_object() -> None:
    one, other = ((1, (int(two), "a")) for two in "22")
    assert one is not other
    assert told([one, one]) == told([one, other])


def test_attributes_that_are_left_out() -> None:
    def of(**attributes: float) -> bytes:
        value = types.SimpleNamespace(scale=1.0, **attributes)
        return b"|".join(of_object(value, names=("_cache*", "jobs")))

    assert of(_cache_of_it=1.0, jobs=1.0) == of(_cache_of_it=2.0, jobs=2.0)
    for name in ("jobs_of_it", "the_jobs", "a_cache", "cache"):
        assert of(**{name: 1.0}) != of(**{name: 2.0})


def test_methods_are_never_left_out() -> None:
    one, other = (with_code(f"def jobs(self): return {v}\n    cached = {v}") for v in (1, 2))
    assert b"|".join(of_object(one, names=("jobs", "cached"))) != b"|".join(of_object(other, names=("jobs", "cached")))
    one, other = (with_code(f"cached = {v}") for v in (1, 2))
    assert b"|".join(of_object(one, names=("cached",))) == b"|".join(of_object(other, names=("cached",)))


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
