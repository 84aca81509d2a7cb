"""Exporters and source factories by entry point; the built-in ones come the same way as third parties'.

Listing reads metadata only; a plugin is imported when its turn to be asked comes. A broken one is shown as broken with
its reason, and two of one name are an error.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ModelError, OptionError, PluginError
from .protocols import Exporter, SourceFactory

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

log = logging.getLogger("fo_onnx.plugins")
EXPORTERS = "fo_onnx.exporters"
SOURCES = "fo_onnx.sources"
_KINDS = {EXPORTERS: "exporter", SOURCES: "source"}


@dataclass(frozen=True)
class PluginState:
    """A plugin as `fo-onnx doctor` shows it: its name, its kind, where it comes from, and why it is broken if it is."""

    name: str
    kind: str
    target: str
    package: str
    problem: str | None


def exporters() -> Iterator[Exporter]:
    """Every exporter that can be loaded, in order of name; broken ones are logged (`states` shows them)."""
    yield from _working(EXPORTERS)


def source_factories() -> Iterator[SourceFactory]:
    """Every source factory that can be loaded, in order of name; broken ones are logged (`states` shows them)."""
    yield from _working(SOURCES)


def exporter(name: str) -> Exporter:
    """The exporter called `name`.

    Raises:
        OptionError: There is none; the message lists those there are.
        PluginError: It cannot be loaded, or two have this name.
    """
    known = _entry_points(EXPORTERS)
    if name not in known:
        listed = ", ".join(map(repr, [*known, "callable"]))
        raise OptionError(f"framework={name!r} is not known; known are {listed}.")
    found: Exporter = _loaded(EXPORTERS, name)
    return found


def exporter_for(model: Any, framework: str | None = None) -> Exporter | None:
    """The exporter whose framework `model` is of, or ``None``.

    Args:
        model: A model object.
        framework: The framework's name where it shall not be told from the model.

    Raises:
        ModelError: Several frameworks claim the model; ``framework=`` chooses.
    """
    if framework is not None:
        return exporter(framework)
    found = [e for e in exporters() if e.accepts(model)]
    if len(found) > 1:
        names = ", ".join(repr(e.name) for e in found)
        raise ModelError(f"the model {type(model).__name__} could be of {names}; say which with framework=.")
    return found[0] if found else None


def exporter_for_file(path: Path) -> Exporter | None:
    """The exporter that opens the model in the file or folder at `path`, or ``None``."""
    return next((e for e in exporters() if e.opens(path)), None)


def states() -> list[PluginState]:
    """Every plugin of both groups, loaded once to see whether it works."""
    return [
        PluginState(name, _KINDS[group], point.value, point.dist.name if point.dist else "?", _problem(group, name))
        for group in (EXPORTERS, SOURCES)
        for name, points in _all_entry_points(group).items()
        for point in points[:1]
    ]


def _working(group: str) -> Iterator[Any]:
    for name in _entry_points(group):
        try:
            yield _loaded(group, name)
        except PluginError as err:
            log.warning("%s", err)


def _problem(group: str, name: str) -> str | None:
    try:
        _loaded(group, name)
    except PluginError as err:
        return str(err)
    return None


def _entry_points(group: str) -> list[str]:
    return sorted(_all_entry_points(group))


@cache
def _all_entry_points(group: str) -> dict[str, list[EntryPoint]]:
    from importlib.metadata import entry_points

    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=group):
        known = found.setdefault(point.name, [])
        # An editable install and a wheel of the same package can both be seen; they are one plugin.
        if all(p.value != point.value for p in known):
            known.append(point)
    return found


@cache
def _loaded(group: str, name: str) -> Any:
    points = _all_entry_points(group)[name]
    if len(points) > 1:
        who = " and ".join(f"{p.value} of {p.dist.name if p.dist else '?'}" for p in points)
        raise PluginError(f"two plugins of {group} are called {name!r}: {who}. Uninstall one of them.")
    try:
        return points[0].load()()
    except Exception as err:
        raise PluginError(
            f"the plugin {name!r} of {group} ({points[0].value}) cannot be loaded: {type(err).__name__}: {err}."
        ) from err
