"""What a function's code names, told from its bytecode: globals, the attributes taken of them, and what it imports.

Nothing is run, but for the import of the user's own modules (files) that the function would import itself.
"""

from __future__ import annotations

import dis
import importlib
import importlib.util
import inspect
import logging
import sys
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

log = logging.getLogger("fo_onnx.bytecode")
Paths = frozenset[tuple[str, ...]]
"""Variables with the attributes that are taken of them, as ``("a", "b")`` for ``a.b``; a local's name is led by a dot."""


def names_in(code: CodeType) -> Iterator[str]:
    """The names of globals and attributes in a function's code, and in that of the functions within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if inspect.iscode(constant):
            yield from names_in(constant)


@lru_cache(maxsize=10_000)
def paths_in(code: CodeType) -> Paths:
    """The variables in a function's code and in that of the functions within it, with the attributes taken of them."""
    found: set[tuple[str, ...]] = set()
    path: tuple[str, ...] = ()
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            path = (*path, step.argval) if path else ()
        elif step.opname.startswith(("LOAD_GLOBAL", "LOAD_NAME")):
            path = (step.argval,)
        elif step.opname.startswith(("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FAST")):
            # Newer Pythons load two variables in one instruction.
            path = (f".{step.argval[-1] if isinstance(step.argval, tuple) else step.argval}",)
        elif step.opname not in ("EXTENDED_ARG", "CACHE"):
            path = ()
        if path:
            found.add(path)
    for constant in code.co_consts:
        if inspect.iscode(constant):
            found |= paths_in(constant)
    return frozenset(found)


def within(paths: Paths, name: str) -> Paths:
    """What is taken of `name`: the rest of the paths that begin with it."""
    return frozenset(p[1:] for p in paths if p[0] == name and len(p) > 1)


def globals_in(function: FunctionType) -> dict[str, Any]:
    """The globals that a function's code names, by name, in the order of their names."""
    named = sorted({path[0] for path in paths_in(function.__code__)} & function.__globals__.keys())
    return {name: function.__globals__[name] for name in named}


def imported_by(function: FunctionType) -> Iterator[tuple[str, ModuleType]]:
    """The user's own modules that a function imports while it runs, by name, each before the package that it is in."""
    package = str(function.__globals__.get("__package__") or "")
    for level, target in sorted(imports_in(function.__code__)):
        try:
            full = importlib.util.resolve_name("." * level + target, package or None)
            if is_library(full):
                continue
            # The function would do so itself, and what it holds has to be the same before and after that.
            module = importlib.import_module(full)
        except Exception as err:
            # Whatever the user's file raises, it does so where the function runs.
            log.debug("%s imports %s, which fails: %s", function.__qualname__, target, err)
            continue
        yield full, module
        top = full.partition(".")[0]
        if top != full:
            yield top, sys.modules[top]


@lru_cache(maxsize=10_000)
def imports_in(code: CodeType) -> frozenset[tuple[int, str]]:
    """The imports in a function's code and in that of the functions within it: how many levels up, and the module's name."""
    found: set[tuple[int, str]] = set()
    steps = list(dis.get_instructions(code))
    for i, step in enumerate(steps):
        if step.opname == "IMPORT_NAME":
            # Before it, the level and what is imported from it are loaded as constants.
            loaded = [
                s.argval for s in steps[max(0, i - 4) : i] if s.opname.startswith("LOAD_") and isinstance(s.argval, int)
            ]
            found.add((loaded[-1] if loaded else 0, step.argval))
    for constant in code.co_consts:
        if inspect.iscode(constant):
            found |= imports_in(constant)
    return frozenset(found)


def is_own_module(value: Any) -> bool:
    """Whether a value is a module (a file) of the user's own, of which functions may take attributes."""
    return isinstance(value, ModuleType) and not is_library(value.__name__)


def is_library(module: str | None) -> bool:
    """Whether a module is of the standard library or of an installed package, whose version says what its code is."""
    top = (module or "").partition(".")[0]
    # A notebook's own code is of __main__, though the program that runs it may be installed.
    return top != "__main__" and (top in sys.stdlib_module_names or _is_installed(top))


@cache
def _is_installed(package: str) -> bool:
    # Also told of a package that is not imported yet. One that is compiled into the interpreter has no file.
    try:
        spec = importlib.util.find_spec(package) if package else None
    except (ImportError, ValueError):
        spec = None
    found = [spec.origin, *(spec.submodule_search_locations or ())] if spec is not None else []
    files = [f for f in (getattr(sys.modules.get(package), "__file__", None), *found) if f is not None]
    return any({"site-packages", "dist-packages"} & set(Path(f).parts) for f in files)
