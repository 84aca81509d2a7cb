"""Between torch tensors and numpy arrays, sharing memory where that is possible and safe."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fo_onnx.contracts.batch import Array
from fo_onnx.errors import DataError

_CURES = {
    "nested": "Its rows differ in length: pad them, with torch.nested.to_padded_tensor(data, 0.0), and give a mask.",
    "masked": "Fill what is masked, with data.to_tensor(value), or give the values and the mask as two inputs.",
    "quantised": "Give the numbers that it stands for, data.dequantize(), which the model is then called with.",
    "meta": "It has a shape and no values.",
}


def to_numpy(tensor: torch.Tensor) -> Array:
    """Return a tensor as an array of the same shape.

    bfloat16 and the 8-bit floats become float32, since numpy lacks them; sparse tensors become dense, quantised ones
    plain. The array shares the tensor's memory if that is possible on the CPU.
    """
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.dtype.is_floating_point and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.to(torch.float32)
    return tensor.cpu().resolve_conj().resolve_neg().numpy()


def rows_to_numpy(tensor: torch.Tensor) -> Array:
    """Return a tensor of the data as an array; see `to_numpy` and `require_plain_rows`."""
    require_plain_rows(tensor)
    return to_numpy(tensor)


def require_plain_rows(tensor: torch.Tensor) -> None:
    """Raise a `DataError` if a tensor of the data is of a kind of which a model would get something else than it is."""
    is_kind = {
        "nested": tensor.is_nested,
        "masked": type(tensor).__name__ == "MaskedTensor",
        "quantised": tensor.is_quantized,
        "meta": tensor.is_meta,
    }
    kind = next((k for k, is_one in is_kind.items() if is_one), None)
    if kind is not None:
        raise DataError(f"the data hold a {kind} tensor; a plain tensor of rows, (n, …), was expected. {_CURES[kind]}")


def to_tensor(array: Array, device: Any = "cpu") -> torch.Tensor:
    """Return an array as a tensor on `device`.

    It shares the memory of a writable array on the CPU. A read-only one is copied: torch has no read-only tensors, and a
    model that works in place would write into what must not be written to.

    Raises:
        DataError: torch has no such dtype.
    """
    native = array.dtype.newbyteorder("=")
    if not array.flags.writeable or array.dtype != native or any(s < 0 for s in array.strides):
        array = np.array(array, dtype=native, order="C")
    try:
        return torch.from_numpy(array).to(device)
    except TypeError:
        raise DataError(
            f"the rows are {array.dtype}, which torch has not. Convert them, for example with "
            "transform=lambda x: x.astype('float64')."
        ) from None
