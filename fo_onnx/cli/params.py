"""--params on the command line: the parameters of a model that does not hold them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..calls import nest
from ..errors import ModelError, ModelNotFoundError
from .objects import Kind, imported, is_reference, made

PARAMS = Kind("parameters", ModelError, ModelNotFoundError)


def load_params(text: str) -> Any:
    """What the verbs take as ``params``.

    Args:
        text: ``package.module:attribute`` (the parameters, or a function without parameters that makes them), or an
            ``.npz`` or safetensors file of arrays whose names say where they belong: ``params.Dense_0.kernel``, or with
            slashes.

    Raises:
        ModelError: There are none.
    """
    if is_reference(text):
        return made(imported(text, PARAMS), text, PARAMS)
    path = Path(text)
    if not path.is_file():
        raise ModelNotFoundError(
            f"opening the parameters {text}: there is no such file, and it is no package.module:attribute."
        )
    return nest({name.replace("/", "."): array for name, array in _arrays(path).items()})


def _arrays(path: Path) -> dict[str, Any]:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        import numpy as np

        try:
            with np.load(path, allow_pickle=False) as content:
                return dict(content)
        except (OSError, ValueError, EOFError) as err:
            raise ModelError(
                f"the parameters in {path} cannot be read: {err}. A sound .npz file was expected."
            ) from err
    if suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return dict(load_file(os.fspath(path)))
        except SafetensorError as err:
            raise ModelError(f"{path} is no safetensors file, or is truncated: {err}") from err
    raise ModelError(f"opening the parameters {path}: .npz, .safetensors or package.module:attribute was expected.")
