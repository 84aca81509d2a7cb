"""Inspects callables without running them: the inputs that they take, and the values that they have at hand."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any

from ..contracts.spec import InputSignature


def signature_of(function: Any, *, ignore_keywords: bool = False) -> InputSignature | None:
    """Return the names of a callable's parameters, without ``self``; ``None`` if they are not known or it takes any.

    Args:
        function: The callable.
        ignore_keywords: Whether ``**kwargs`` beside named parameters holds no inputs.
    """
    parameters = _parameters_of(function)
    named = [p for p in parameters or () if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    ignored = (inspect.Parameter.VAR_KEYWORD,) if ignore_keywords and named else ()
    more = [p for p in parameters or () if p not in named and p.kind not in ignored]
    if parameters is None or more:
        return None
    required = tuple(p.name for p in named if p.default is p.empty)
    return InputSignature(required, tuple(p.name for p in named if p.default is not p.empty))


def takes_keywords(function: Any) -> bool:
    """Return whether a callable has a parameter like ``**kwargs``."""
    return any(p.kind == p.VAR_KEYWORD for p in _parameters_of(function) or ())


def _parameters_of(function: Any) -> list[inspect.Parameter] | None:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None


def captured_values(function: Any) -> Iterator[Any]:
    """Yield what a callable has at hand: closure, the globals it names, arguments of a partial, a method's owner."""
    if isinstance(function, functools.partial):
        yield from (*function.args, *function.keywords.values())
        yield from captured_values(function.func)
        return
    if inspect.ismethod(function):
        yield function.__self__
    elif not inspect.isfunction(function):
        yield from vars(function).values() if hasattr(function, "__dict__") else ()
        function = getattr(type(function), "__call__", None)  # noqa: B004
    code = getattr(function, "__code__", None)
    if code is None:
        return
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a name that is not bound yet
            continue
    yield from (function.__globals__[n] for n in code.co_names if n in function.__globals__)
