"""Objects by the text ``package.module:attribute``, imported with the current folder on the path."""

from __future__ import annotations

import importlib
import inspect
import operator
import os
import re
import sys
from types import ModuleType
from typing import Any, NamedTuple

from ...errors import DataError, DataNotFoundError, FoOnnxError, ModelError, ModelNotFoundError
from ...models import plugins

_TEXT = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_SHOWN = 12


class Kind(NamedTuple):
    """What a reference must name: the word for messages, the error if it cannot be used, and the one if there is none."""

    name: str
    error: type[FoOnnxError]
    missing: type[FoOnnxError]


MODEL = Kind("model", ModelError, ModelNotFoundError)
DATA = Kind("data", DataError, DataNotFoundError)
PARAMS = Kind("parameters", ModelError, ModelNotFoundError)


def is_reference(text: str) -> bool:
    """Return whether `text` has the form ``package.module:attribute``, and no file has that name."""
    return _TEXT.fullmatch(text) is not None and not os.path.exists(text)


def open_reference(text: str, kind: Kind) -> Any:
    """Return the object that ``package.module:attribute`` names, or what it makes.

    A class is called, and so is a factory: a function without required parameters, or one that is annotated to return a model.

    Raises:
        ModelError, DataError: As `kind` says; there is none, or it cannot be made.
    """
    # An instance, or a function over arrays, is what was meant.
    doing = f"opening the {kind.name} {text}"
    value = _import(text, doing, kind)
    if not inspect.isclass(value) and not inspect.isroutine(value):
        return value
    required = _required_parameters(value)
    if required and not inspect.isclass(value) and not _returns_model(value):
        return value

    # Everything else has to be called.
    noun = "class" if inspect.isclass(value) else "factory"
    if required:
        raise kind.error(
            f"{doing}: the {noun} needs {', '.join(required)}, and is called without arguments. Name an instance, or a function "
            "without parameters that makes one."
        )
    try:
        instance = value()
    except (Exception, SystemExit) as err:
        raise kind.error(f"{doing}: calling the {noun} failed: {type(err).__name__}: {err}") from err
    if instance is None:
        raise kind.error(f"{doing}: the {noun} returned None; a {kind.name} was expected.")
    return instance


def add_current_folder() -> None:
    """Put the current folder on the path of imports, where a reference or a pickle may name modules."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def _import(text: str, doing: str, kind: Kind) -> Any:
    name, _, attribute = text.partition(":")
    module = _import_module(name, doing, kind)
    try:
        return operator.attrgetter(attribute)(module)
    except AttributeError as err:
        has = ", ".join(_list_candidates(module, kind)) or "nothing that looks like one"
        place = getattr(module, "__file__", None) or "built in"
        raise kind.missing(f"{doing}: the module {name} ({place}) has no {attribute!r}. It has {has}.") from err


def _import_module(name: str, doing: str, kind: Kind) -> ModuleType:
    add_current_folder()
    # A module may have been written since the last import.
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as err:
        # The module itself may be missing, or one that it imports.
        if err.name is not None and (name == err.name or name.startswith(f"{err.name}.")):
            raise kind.missing(
                f"{doing}: there is no module {err.name!r}, neither in {os.getcwd()} nor among what is installed."
            ) from err
        raise kind.error(f"{doing}: the module {name} needs {err.name!r}, which is not installed.") from err
    except (Exception, SystemExit) as err:
        raise kind.error(f"{doing}: importing {name} failed: {type(err).__name__}: {err}") from err


def _required_parameters(value: Any) -> list[str]:
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return ["arguments that are not known"]
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _returns_model(function: Any) -> bool:
    """Return whether a function is annotated to return a module or a model, so that it is a factory and no model."""
    returned = getattr(function, "__annotations__", {}).get("return")
    name = returned if isinstance(returned, str) else getattr(returned, "__name__", "")
    bases = [c.__name__ for c in getattr(returned, "__mro__", ())]
    return any(n.rpartition(".")[2] in ("Module", "Model", "Sequential") for n in (name, *bases))


def _list_candidates(module: ModuleType, kind: Kind) -> list[str]:
    """Return what in a module may be what is wanted: instances first, then its own classes and functions."""
    # A plugin imports its framework to look at a value; what the module holds is of frameworks that are imported.
    loaded = [e for e in plugins.exporters() if not sys.modules.keys().isdisjoint(e.modules)]
    ranked: list[tuple[int, str]] = []
    for name, value in vars(module).items():
        if name.startswith("_") or inspect.ismodule(value):
            continue
        # What the module only imports is listed if a framework knows it.
        own = getattr(value, "__module__", None) == module.__name__
        if inspect.isclass(value) or inspect.isroutine(value):
            if own:
                ranked.append((1, f"{name} ({'class' if inspect.isclass(value) else 'function'})"))
        elif kind is DATA or own or any(e.accepts(value) for e in loaded):
            ranked.append((0, f"{name} ({type(value).__name__})"))
    names = [text for _, text in sorted(ranked)]
    return names[:_SHOWN] + ([f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else [])
