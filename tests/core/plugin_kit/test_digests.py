"""Digests tell one array, function or class from another by name, code, plain values and arrays, the same in every process."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fresh_python import run_python

from fo_onnx.plugin_kit.digests import is_library, of_array, of_callable, of_class_code, of_value, sha256_of


class Scaled:
    """An object that is called, with something at hand."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, x: Any) -> Any:
        return x * self.value

    def predict(self, x: Any) -> Any:
        return x + self.value


class Wrapper:
    def __init__(self, function: Any, scale: float) -> None:
        functools.update_wrapper(self, function)
        self.function, self.scale = function, scale

    def __call__(self, x: Any) -> Any:
        return self.function(x) * self.scale


def close_over(value: Any) -> Any:
    return lambda x: x * value


def class_with(text: str, kind: str = "") -> Any:
    space: dict[str, Any] = {"__name__": "user", "functools": functools}
    exec(f"class Own({kind}):\n    {text}\n", space)
    return space["Own"]


def decorate(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


CALLABLES: dict[str, Callable[[float], Any]] = {
    "closure": close_over,
    "closure over an array": lambda v: close_over(np.full(3, v)),
    "closure over a number of numpy": lambda v: close_over(np.float32(v)),
    "closure over a tuple": lambda v: close_over((1, (v, "a"), None)),
    "closure over a frozenset": lambda v: close_over(frozenset({"a", "b", str(v)})),
    "default": lambda v: lambda x, scale=v: x * scale,
    "keyword default": lambda v: lambda x, *, scale=v: x * scale,
    "partial": lambda v: functools.partial(np.multiply, v),
    "partial by keyword": lambda v: functools.partial(close_over(2), x=v),
    "partial of a function": lambda v: functools.partial(close_over(v), 2),
    "object that is called": Scaled,
    "object with an array": lambda v: Scaled(np.full(3, v)),
    "method": lambda v: Scaled(v).predict,
    "wrapper": lambda v: Wrapper(len, v),
    "wrapped": lambda v: Wrapper(close_over(v), 1.0),
    "decorated": lambda v: decorate(close_over(v)),
    "class": lambda v: class_with(f"def __call__(self, x): return x * {v}"),
    "code of an object's class": lambda v: class_with(f"def __call__(self, x): return x * {v}")(),
    "code of a list's class": lambda v: class_with(f"def __call__(self, x): return x * {v}", "list")(),
    "constant of a class": lambda v: class_with(f"factor = {v}")(),
    "partial method": lambda v: class_with(f"__call__ = functools.partialmethod(lambda self, x: x * {v})")(),
    "decorated method": lambda v: class_with(f"__call__ = functools.wraps(len)(lambda self, x: x * {v})")(),
    "property": lambda v: class_with(f"scale = property(lambda self: {v})")(),
    "cached property": lambda v: class_with(f"scale = functools.cached_property(lambda self: {v})")(),
    "class method": lambda v: class_with(f"scale = classmethod(lambda cls: {v})")().scale,
    "names of arguments": lambda v: (lambda a, b: a - b) if v == 1 else (lambda b, a: b - a),
    "kinds of arguments": lambda v: (lambda a, b: a - b) if v == 1 else (lambda a, *, b: a - b),
    "function in a function": lambda v: (lambda: lambda x: x * 1.0) if v == 1 else (lambda: lambda x: x * 1.5),
    "builtin function": lambda v: math.sinh if v == 1 else math.tanh,
    "ufunc": lambda v: np.sinh if v == 1 else np.tanh,
    "function of numpy": lambda v: np.dot if v == 1 else np.inner,
}


@pytest.mark.parametrize("name", CALLABLES)
def test_callables_differ(name: str) -> None:
    make = CALLABLES[name]
    assert list(of_callable(make(1.0))) == list(of_callable(make(1.0)))
    assert list(of_callable(make(1.0))) != list(of_callable(make(1.5)))


@pytest.mark.parametrize(
    "value", [[1], {"a": 1}, {1}, threading.Lock(), Scaled(1), np.array([None, 1])], ids=lambda v: type(v).__name__
)
def test_what_is_not_plain_counts_by_its_type(value: Any) -> None:
    (name,) = of_value(value)
    assert name == f"{type(value).__module__}.{type(value).__qualname__}".encode()
    assert list(of_callable(close_over(value)))


def nested(value: Any, depth: int, times: int = 1) -> Any:
    return functools.reduce(lambda inner, _: (inner,) * times, range(depth), value)


def test_tuples_in_tuples() -> None:
    assert list(of_callable(close_over(nested(1, 6)))) != list(of_callable(close_over(nested(2, 6))))
    for deep in (nested(1, 5000), nested(1, 60, times=2)):
        assert list(of_value(deep)) == [b"builtins.tuple"]


def test_calling_an_object_does_not_change_its_digest() -> None:
    class Lists:
        def __init__(self) -> None:
            self.calls: list[Any] = []

        def __call__(self, x: Any) -> Any:
            self.calls.append(x)

    model = Lists()
    before = list(of_callable(model))
    model(1)
    assert list(of_callable(model)) == before


def test_a_name_that_is_not_bound_yet() -> None:
    def early() -> Any:
        return later

    assert list(of_callable(early))
    later = 1.0
    assert list(of_callable(early))


def test_arrays_differ_by_dtype_shape_and_every_value() -> None:
    large = np.zeros(5_000_000)
    arrays = [large.copy(), large.reshape(-1, 1), large.astype(np.float32), large.view(np.int64), large.copy()]
    arrays[-1][-1] = 1e-9
    assert len({sha256_of(of_array(a)) for a in arrays}) == len(arrays)
    by_columns = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    assert list(of_array(by_columns)) == list(of_array(np.ascontiguousarray(by_columns)))


def test_borders_between_parts_count() -> None:
    assert sha256_of([b"a", b"bc"]) != sha256_of([b"ab", b"c"])
    assert sha256_of([b"a", b""]) != sha256_of([b"a"])


def test_classes_of_libraries_count_by_their_versions() -> None:
    kind = class_with("def f(self): return 1", "list")
    assert list(of_class_code([list, functools.partial, np.ndarray])) == []
    assert list(of_class_code(kind.__mro__)) == list(of_class_code([kind, kind])) != []
    assert [is_library(m) for m in ("os.path", "numpy.linalg", "pytest", "__main__", "user", __name__, None, "")] == [
        True, True, True, False, False, False, False, False,
    ]  # fmt: skip


def test_the_same_in_another_process() -> None:
    program = f"import {__name__} as t\nprint([t.sha256_of(t.of_callable(make(1.0))) for make in t.CALLABLES.values()])"
    assert run_python(program, hash_seed=1) == run_python(program, hash_seed=2)


class Base:
    calls, scale = 0, 2.0


class Noting(Base):
    """Assigns while it is called, and elsewhere."""

    def __init__(self, value: float) -> None:
        self.value, self.last, self.calls_here = value, np.zeros(2), 0

    def __call__(self, x: Any) -> Any:
        def note() -> None:
            self.last_time = x

        note()
        Base.calls += 1
        self.last = np.full(2, x)
        return self._multiply(x)

    def _multiply(self, x: Any) -> Any:
        self.calls_here += 1
        return x * self.value * self.scale

    def set_value(self, value: float) -> None:
        self.value = value


def test_plain_values_that_are_assigned_in_calls_do_not_count() -> None:
    noting = Noting(1.0)
    noting.last = np.full(2, 3)
    known = sha256_of(of_callable(noting))
    noting(3)
    assert Base.calls == noting.calls_here == 1
    assert sha256_of(of_callable(noting)) == known
    # Others do, and so do arrays.
    noting.set_value(2.0)
    assert sha256_of(of_callable(noting)) != known
    noting.set_value(1.0)
    noting(4)
    assert sha256_of(of_callable(noting)) != known


def test_what_is_nonlocal_does_not_count() -> None:
    def make(scale: float) -> Any:
        calls, rows = 0, np.zeros(2)

        def model(x: Any) -> Any:
            nonlocal calls, rows
            calls += 1
            rows = rows + x
            return x * scale

        return model

    model = make(2.0)
    known = sha256_of(of_callable(model))
    model(0)
    assert sha256_of(of_callable(model)) == known
    assert sha256_of(of_callable(make(3.0))) != known
    model(1)
    assert sha256_of(of_callable(model)) != known
