"""Exporters and source factories by entry point; the built-in ones come the same way as third parties'.

Listing reads metadata only; a plugin is imported when its turn to be asked comes. A broken one is shown as broken with
its reason, and two of one name are an error.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..contracts.batch import Inputs
from ..contracts.exporter import BindsParams, Exporter, LoadsWeights, OpensFiles, PrefersNative
from ..contracts.source import SourceFactory
from ..errors import ModelError, OptionError, PluginError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

log = logging.getLogger("fo_onnx.models.plugins")
EXPORTERS = "fo_onnx.exporters"
SOURCES = "fo_onnx.sources"


@dataclass(frozen=True)
class PluginState:
    """A plugin as `fo-onnx doctor` shows it: its name, its kind, where it comes from, and why it is broken if it is."""

    name: str
    kind: str
    target: str
    package: str
    problem: str | None


def exporters() -> Iterator[Exporter]:
    """Yield every exporter that can be loaded, in order of name; broken ones are logged (`states` shows them)."""
    yield from _working(EXPORTERS)


def source_factories() -> Iterator[SourceFactory]:
    """Yield every source factory that can be loaded, in order of name; broken ones are logged (`states` shows them)."""
    yield from _working(SOURCES)


def exporter(name: str) -> Exporter:
    """Return the exporter called `name`.

    Raises:
        OptionError: There is none; the message lists those there are.
        PluginError: It cannot be loaded, or two have this name.
    """
    known = _all_entry_points(EXPORTERS)
    if name not in known:
        listed = ", ".join(map(repr, [*known, "callable"]))
        raise OptionError(f"framework={name!r} is not known; known are {listed}.")
    plugin: Exporter = _load(EXPORTERS, name)
    return plugin


def exporter_for(model: Any, framework: str | None = None) -> Exporter | None:
    """Return the exporter whose framework `model` is of, or ``None``.

    Args:
        model: A model object.
        framework: The framework's name, if it is not to be detected.

    Raises:
        ModelError: Several frameworks claim the model; ``framework=`` chooses.
    """
    if framework is not None:
        return exporter(framework)
    claims = [e for e in exporters() if not sys.modules.keys().isdisjoint(e.modules) and e.accepts(model)]
    if len(claims) > 1:
        names = ", ".join(repr(e.name) for e in claims)
        raise ModelError(f"the model {type(model).__name__} could be of {names}; say which with framework=.")
    return claims[0] if claims else None


def exporter_for_file(path: Path) -> Exporter | None:
    """Return the exporter that opens the model in the file or folder at `path`, or ``None``."""
    return next((e for e in exporters() if isinstance(e, OpensFiles) and e.opens(path)), None)


def file_suffixes() -> list[str]:
    """Return the suffixes of model files that the installed frameworks open, sorted."""
    return sorted({suffix for e in exporters() if isinstance(e, OpensFiles) for suffix in e.suffixes})


# What only some exporters offer ----------------------------------------------------------------------------------


def load_model_file(exporter: Exporter, path: Path, *, trust: bool) -> Any:
    """Return the model in a file.

    Raises:
        ModelError: The framework has no model files, or this one is damaged.
        TrustError: Reading it would run code, and `trust` is false.
    """
    if not isinstance(exporter, OpensFiles):
        raise ModelError(
            f"opening the model {path}: {exporter.name} has no model files that could be opened. Give the model itself, with "
            "params= if it does not hold its parameters."
        )
    return exporter.load(path, trust=trust)


def load_weights(exporter: Exporter, model: Any, path: Path) -> None:
    """Fill `model` with the weights in a file.

    Raises:
        ModelError: They do not fit, or models of this framework are not filled from files.
    """
    if not isinstance(exporter, LoadsWeights):
        raise ModelError(
            f"{path}: weights in files are not read for models of {exporter.name}. Give the model with its weights in it, or with "
            "params= if they are an argument of its function."
        )
    exporter.load_weights(model, path)


def bind_params(exporter: Exporter, model: Any, params: Any) -> Any:
    """Return `model` with its parameters.

    Raises:
        OptionError: Models of this framework hold their own parameters, or these do not fit.
    """
    if not isinstance(exporter, BindsParams):
        raise OptionError(
            f"params= was given for {type(model).__name__}, and a model of {exporter.name} holds its own. Load them into it "
            "(load_state_dict of torch, set_weights of Keras) and leave params= out."
        )
    return exporter.bind_params(model, params)


def prefer_native(exporter: Exporter, model: Any, example: Inputs) -> str | None:
    """Return why `model` is better run natively; ``None`` if ONNX is the first choice."""
    return exporter.prefer_native(model, example) if isinstance(exporter, PrefersNative) else None


def states() -> list[PluginState]:
    """Return every plugin of both groups, loaded once to see whether it works."""
    plugins = []
    for kind, group in (("exporter", EXPORTERS), ("source", SOURCES)):
        for name, (point, *_) in _all_entry_points(group).items():
            problem = None
            try:
                _load(group, name)
            except PluginError as err:
                problem = str(err)
            package = point.dist.name if point.dist else "?"
            plugins.append(PluginState(name, kind, point.value, package, problem))
    return plugins


def _working(group: str) -> Iterator[Any]:
    for name in _all_entry_points(group):
        try:
            yield _load(group, name)
        except PluginError as err:
            log.warning("%s", err)


@cache
def _all_entry_points(group: str) -> dict[str, list[EntryPoint]]:
    from importlib.metadata import entry_points

    by_name: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=group), key=lambda p: p.name):
        known = by_name.setdefault(point.name, [])
        # An editable install and a wheel of the same package can both be seen; they are one plugin.
        if all(p.value != point.value for p in known):
            known.append(point)
    return by_name


@cache
def _load(group: str, name: str) -> Any:
    points = _all_entry_points(group)[name]
    if len(points) > 1:
        origins = " and ".join(f"{p.value} of {p.dist.name if p.dist else '?'}" for p in points)
        raise PluginError(f"two plugins of {group} are called {name!r}: {origins}. Uninstall one of them.")
    try:
        return points[0].load()()
    except Exception as err:
        raise PluginError(
            f"the plugin {name!r} of {group} ({points[0].value}) cannot be loaded: {type(err).__name__}: {err}."
        ) from err
