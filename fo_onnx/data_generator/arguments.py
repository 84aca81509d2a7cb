"""Errors of the core in the words of the guide's callers, who have fewer arguments, and call `output` `output_mode`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ..contracts.options import GenerateArguments
from ..errors import FoOnnxError

OWN = ("output_mode", "output_transform", "input_getter", "model_name", "runner")
"""The arguments of `FirstOrderDataGenerator` beside the model, the device and the batch size."""
TAKEN_BY_GENERATE = {
    name: f"fo_onnx.generate(model, data, {name}=…)"
    for name in GenerateArguments.__annotations__
    if name not in ("device", "batch_size", "labels", "progress", "output", *OWN)
}
"""Arguments of the core that `FirstOrderDataGenerator` lacks, each with the call that takes it."""
TAKEN_BY_GENERATOR = {
    "labels": "generate_distributions() leaves labels out, and fo_onnx.generate(model, data, labels=…)",
    **{name: f"FirstOrderDataGenerator(model, {name}=…)" for name in OWN},
}
"""Arguments that `DataGenerator` lacks beside those, likewise."""


def rewrite(message: str, elsewhere: Mapping[str, str] = TAKEN_BY_GENERATE) -> str:
    """Return a message with the caller's arguments; a last sentence for each that it lacks names the call that takes it."""
    message = re.sub(r", whatever \w+= says", "", message)
    # A name within a path, a quotation or another name is not an argument.
    pattern = rf"(?<![\w./\\'\"-])({'|'.join(('output', *elsewhere))})=(?!=)"
    missing = [name for name in dict.fromkeys(re.findall(pattern, message)) if name in elsewhere]
    text = re.sub(pattern, lambda match: "output_mode=" if match[1] == "output" else match[0], message)
    advice = "".join(f" There is no {name}= here; {elsewhere[name]} takes it." for name in missing)
    return f"{text.rstrip('.')}.{advice}" if advice else text


@contextmanager
def rewrite_errors(elsewhere: Mapping[str, str] = TAKEN_BY_GENERATE) -> Iterator[None]:
    """Rewrite the message of an error that is raised within."""
    try:
        yield
    except FoOnnxError as err:
        err.args = (rewrite(str(err.args[0]), elsewhere), *err.args[1:])
        raise
