"""--params on the command line: the parameters of a model that does not hold them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..array_files import read_npz
from ..calls import nest
from ..errors import ModelError, ModelNotFoundError, reading
from ..limits import check_regular, check_sparse
from .objects import Kind, imported, is_reference, made

_DOING = "Reading the parameters"
PARAMS = Kind("parameters", ModelError, ModelNotFoundError)


def load_params(text: str) -> Any:
    """What the verbs take as ``params``.

    Args:
        text: ``package.module:attribute`` (the parameters, or a function without parameters that makes them), or an
            ``.npz`` or safetensors file of arrays whose names say where they belong: ``params.Dense_0.kernel``, or with
            slashes where no name has a dot; numbers are positions in tuples.

    Raises:
        ModelError: There are none.
    """
    if is_reference(text):
        return made(imported(text, PARAMS), text, PARAMS)
    path = Path(text)
    if not os.path.exists(path):
        raise ModelNotFoundError(
            f"opening the parameters {text}: there is no such file, and it is no package.module:attribute."
        )
    with reading(path, ModelError, _DOING):
        check_regular(path, ModelError, _DOING)
        check_sparse(path, ModelError)
        arrays = _arrays(path)
        if not any("." in name for name in arrays):
            arrays = {name.replace("/", "."): array for name, array in arrays.items()}
        nested = nest(arrays)
        # Numbers in the names are positions, in the outermost structure as in the inner ones.
        return tuple(nested[k] for k in sorted(nested, key=int)) if all(map(str.isdecimal, nested)) else nested


def _arrays(path: Path) -> dict[str, Any]:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return read_npz(path, ModelError, _DOING)
    if suffix == ".safetensors":
        from safetensors.numpy import load_file

        return dict(load_file(os.fspath(path)))
    raise ModelError(f"opening the parameters {path}: .npz, .safetensors or package.module:attribute was expected.")
