"""ONNX Runtime sessions: the only place that imports onnxruntime.

Its telemetry is switched off before the import, unless the user has set the variable: from 1.29 on it sends data on
Linux too, and nothing after the import stops it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..control.run_control import ThreadCall, current
from ..control.signals import wait_until
from ..errors import DeviceError, ModelError, PluginError, RunError, first_line
from .devices import KINDS, Placement, missing_library

INSTALL_HINT = "pip install 'fo-onnx[cpu]' (or 'fo-onnx[gpu]' for CUDA)"
_NOTHING = 4
SLOWER_FUSIONS = ["SkipLayerNormFusion"]
"""Of ONNX Runtime's own fusions those whose kernel is slower on the CPU than what it takes the place of.

A sum and its layer normalisation as one node took 400 µs for (2, 128, 256), the two nodes 50 µs (onnxruntime 1.32); as two nodes
BERT of 4 layers ran 1.16 to 1.21 times as fast on one thread, and ViT-Tiny 1.01 times.
"""
GRACE_S = 0.7
"""How long calls in progress get to end after an interrupt before the caller continues without them."""


class MemoryExhausted(RunError):
    """The device has no room for a batch; a smaller one may fit."""


def runtime() -> ModuleType:
    """Return the onnxruntime module, without telemetry.

    Raises:
        PluginError: It is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as err:
        raise PluginError(f"running a model needs onnxruntime, which is not installed: {INSTALL_HINT}.") from err
    if not hasattr(onnxruntime, "InferenceSession"):
        raise PluginError(
            "onnxruntime is damaged: two of its wheels overwrote each other, or one was removed. Mend it with "
            f"pip uninstall -y onnxruntime onnxruntime-gpu, then {INSTALL_HINT}."
        )
    module: ModuleType = onnxruntime
    return module


def available_providers() -> list[str]:
    """Return the execution providers that the installed onnxruntime was built with."""
    return list(runtime().get_available_providers())


def seed_random_operators() -> None:
    """Let random operators of sessions that are opened from now on give the same numbers as in another process."""
    runtime().set_seed(0)


class Session:
    """One ONNX Runtime session.

    Attributes:
        provider: The execution provider that runs the graph.
        cpu_nodes: Number of nodes that run on the CPU though another provider was asked for; 0 on the CPU itself.
        opening_s: Seconds that opening it took.
    """

    def __init__(
        self,
        model: Path | bytes,
        folder: Path,
        placement: Placement,
        threads: int,
        model_name: str,
        *,
        spinning: bool = True,
    ) -> None:
        """Open a session.

        Args:
            model: A model file, or a model's bytes.
            folder: Where external data of a model given as bytes lies.
            placement: The provider and its options.
            threads: Threads within an operator.
            model_name: For messages.
            spinning: Whether its threads spin while they wait for work.

        Raises:
            DeviceError: The provider was asked for and did not load.
            ModelError: ONNX Runtime refuses the model.
        """
        ort = runtime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        # Where the processor's instruction for products of 8 bits saturates (AVX2), slower kernels give what the graph means.
        options.add_session_config_entry("session.x64quantprecision", "1")
        # What it would print of an error is in the exception, too.
        options.log_severity_level = _NOTHING
        accelerated = placement.provider != "CPUExecutionProvider"
        if accelerated:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
            placement.preload(ort)
        provider_options = dict(placement.options)
        if placement.provider == KINDS["openvino"]:
            provider_options["num_of_threads"] = str(threads)
        if isinstance(model, bytes):
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
        begun = time.perf_counter()
        providers: list[Any] = [(placement.provider, provider_options)]
        if accelerated:
            providers.append("CPUExecutionProvider")
        try:
            # Where a provider does not load, onnxruntime says so on standard output, which is for data.
            opening = current().calling("opening the model in ONNX Runtime")
            with opening, contextlib.redirect_stdout(sys.stderr):
                self._session = ort.InferenceSession(
                    model if isinstance(model, bytes) else str(model), options, providers,
                    disabled_optimizers=[*placement.disabled_optimizers, *([] if accelerated else SLOWER_FUSIONS)],
                )  # fmt: skip
        except Exception as err:
            # ONNX Runtime's exceptions have no common base below Exception.
            raise ModelError(
                f"ONNX Runtime refuses the model {model_name}: {first_line(err, with_kind=False)}"
            ) from err
        if self._session.get_providers()[0] != placement.provider:
            # A missing library gives a CPU session without an exception.
            raise DeviceError(
                f"device={placement.device!r} was asked for, but ONNX Runtime could not load {placement.provider}: "
                f"{missing_library(ort, placement.provider)}. Mend the installation, or say device='cpu'."
            )
        self.opening_s = time.perf_counter() - begun
        self.provider = placement.provider
        self.cpu_nodes = _nodes_on_cpu(self._session) if accelerated else 0
        self._ort = ort
        self._model_name = model_name

    def run(self, outputs: Sequence[str], feed: dict[str, NDArray[Any]]) -> list[NDArray[np.generic]]:
        """Return the named outputs for the arrays in `feed`.

        In the main thread Ctrl-C would wait until the run ends, which may be never; there, another thread runs it.

        Raises:
            MemoryExhausted: The batch does not fit into the device's memory.
            RunError: ONNX Runtime failed.
            RunEnded: The run that this is called for is over (`fo_onnx.control.run_control`); ONNX Runtime was asked to stop.
        """
        # Of this call alone: whoever ends it ends no other one in the same session.
        options = self._ort.RunOptions()
        options.log_severity_level = _NOTHING
        if threading.current_thread() is not threading.main_thread():
            return self._run(outputs, feed, options)
        running = ThreadCall(lambda: self._run(outputs, feed, options), "fo-onnx-run")
        try:
            wait_until(running.ended.wait)
        except BaseException:  # an interrupt
            options.terminate = True
            running.ended.wait(GRACE_S)
            raise
        return running.result()

    def _run(self, outputs: Sequence[str], feed: dict[str, NDArray[Any]], options: Any) -> list[NDArray[np.generic]]:
        def end() -> None:
            options.terminate = True

        try:
            with current().calling("a batch in ONNX Runtime", end):
                arrays: list[NDArray[np.generic]] = self._session.run(outputs, feed, options)
        except Exception as err:
            if "Failed to allocate memory" in str(err) or "bad_alloc" in str(err):
                raise MemoryExhausted(f"running {self._model_name}: {first_line(err, with_kind=False)}") from err
            raise RunError(
                f"running {self._model_name} in ONNX Runtime failed: {first_line(err, with_kind=False)}"
            ) from err
        return arrays


def _nodes_on_cpu(session: Any) -> int:
    try:
        assigned = session.get_provider_graph_assignment_info()
    except AttributeError:  # onnxruntime before 1.24
        return -1
    return sum(len(part.get_nodes()) for part in assigned if part.ep_name == "CPUExecutionProvider")
