"""Objects by the text ``package.module:attribute``, imported with the current folder on the path."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from types import ModuleType
from typing import Any

from ..errors import DataError, DataNotFoundError, FoOnnxError, ModelError, ModelNotFoundError

_TEXT = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_SHOWN = 12


class Kind:
    """What is looked for, for messages: a model or data."""

    def __init__(self, what: str, error: type[FoOnnxError], missing: type[FoOnnxError]) -> None:
        self.what, self.error, self.missing = what, error, missing


MODEL = Kind("model", ModelError, ModelNotFoundError)
DATA = Kind("data", DataError, DataNotFoundError)


def is_reference(text: str) -> bool:
    """Whether `text` has the form ``package.module:attribute``, and no file has that name."""
    return _TEXT.fullmatch(text) is not None and not os.path.exists(text)


def imported(text: str, kind: Kind) -> Any:
    """The object that ``package.module:attribute`` names.

    Raises:
        ModelError, DataError: As `kind` says; the module is missing or fails, or has no such attribute.
    """
    name, _, attribute = text.partition(":")
    module = _module(name, text, kind)
    found: Any = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as err:
            has = ", ".join(_candidates(module, kind)) or "nothing that looks like one"
            raise kind.missing(
                f"opening the {kind.what} {text}: the module {name} ({_place(module)}) has no {attribute!r}. It has {has}."
            ) from err
    return found


def made(value: Any, text: str, kind: Kind) -> Any:
    """`value`, or what it makes where it is a class, or a factory: a function without required parameters.

    Raises:
        ModelError, DataError: As `kind` says; it needs arguments, or making it failed.
    """
    if not inspect.isclass(value) and not inspect.isroutine(value):
        return value
    needed = _required(value)
    if needed and not inspect.isclass(value) and not _returns_class(value):
        return value  # a function over arrays
    what = "class" if inspect.isclass(value) else "factory"
    if needed:
        raise kind.error(
            f"opening the {kind.what} {text}: the {what} needs {', '.join(needed)}, and is called without arguments. Name an "
            "instance, or a function without parameters that makes one."
        )
    try:
        found = value()
    except (Exception, SystemExit) as err:
        raise kind.error(
            f"opening the {kind.what} {text}: calling the {what} failed: {type(err).__name__}: {err}"
        ) from err
    if found is None:
        raise kind.error(f"opening the {kind.what} {text}: the {what} returned None; a {kind.what} was expected.")
    return found


def _module(name: str, text: str, kind: Kind) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as err:
        if err.name is not None and (name == err.name or name.startswith(f"{err.name}.")):
            raise kind.missing(
                f"opening the {kind.what} {text}: there is no module {err.name!r}, neither in {here} nor among what is "
                "installed."
            ) from err
        raise kind.error(
            f"opening the {kind.what} {text}: the module {name} needs {err.name!r}, which is not installed."
        ) from err
    except (Exception, SystemExit) as err:
        raise kind.error(
            f"opening the {kind.what} {text}: importing {name} failed: {type(err).__name__}: {err}"
        ) from err


def _required(value: Any) -> list[str]:
    """The parameters that must be given to call `value`."""
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return ["arguments that cannot be told"]
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _returns_class(function: Any) -> bool:
    """Whether a function is annotated to return a module or a model, so that it is a factory and no model."""
    returned = getattr(function, "__annotations__", {}).get("return")
    name = returned if isinstance(returned, str) else getattr(returned, "__name__", "")
    bases = [c.__name__ for c in getattr(returned, "__mro__", ())]
    return any(n.rpartition(".")[2] in ("Module", "Model", "Sequential") for n in (name, *bases))


def _candidates(module: ModuleType, kind: Kind) -> list[str]:
    """What in a module looks like what is looked for, the likeliest first."""
    from .. import plugins

    ranked: list[tuple[int, str]] = []
    for name, value in vars(module).items():
        if name.startswith("_") or inspect.ismodule(value):
            continue
        own = getattr(value, "__module__", None) == module.__name__
        if inspect.isclass(value) or inspect.isroutine(value):
            if own:
                ranked.append((1, f"{name} ({'class' if inspect.isclass(value) else 'function'})"))
        elif kind is DATA or own or any(e.accepts(value) for e in plugins.exporters()):
            ranked.append((0, f"{name} ({type(value).__name__})"))
    names = [text for _, text in sorted(ranked)]
    return names[:_SHOWN] + ([f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else [])


def _place(module: ModuleType) -> str:
    return str(getattr(module, "__file__", None) or "built in")
