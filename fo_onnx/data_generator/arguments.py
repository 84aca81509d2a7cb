"""Errors of the core in the words of the guide's callers, who have fewer arguments, partly under other names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ..contracts.options import GenerateArguments
from ..errors import FoOnnxError


@dataclass(frozen=True)
class Arguments:
    """The arguments of one caller of the core.

    Attributes:
        renamed: Arguments that the caller has under another name than the core.
        elsewhere: Arguments that the caller lacks, each with the call that takes it.
    """

    renamed: Mapping[str, str]
    elsewhere: Mapping[str, str]

    def rewrite(self, message: str) -> str:
        """Return a message with the caller's arguments; for each that it lacks, a last sentence names the call that takes it."""
        message = re.sub(r", whatever \w+= says", "", message)
        # A name within a path, a quotation or another name is not an argument.
        pattern = rf"(?<![\w./\\'\"-])({'|'.join((*self.renamed, *self.elsewhere))})=(?!=)"
        missing = [name for name in dict.fromkeys(re.findall(pattern, message)) if name in self.elsewhere]
        text = re.sub(pattern, lambda match: f"{self.renamed.get(match[1], match[1])}=", message)
        advice = "".join(f" There is no {name}= here; {self.elsewhere[name]} takes it." for name in missing)
        return f"{text.rstrip('.')}.{advice}" if advice else text

    @contextmanager
    def in_errors(self) -> Iterator[None]:
        """Rewrite the message of an error that is raised within."""
        try:
            yield
        except FoOnnxError as err:
            err.args = (self.rewrite(str(err.args[0])), *err.args[1:])
            raise


def lacking(*own: str) -> dict[str, str]:
    """Return the arguments of `fo_onnx.generate` that a caller with its own ones lacks, each with that call."""
    names = GenerateArguments.__annotations__
    return {name: f"fo_onnx.generate(model, data, {name}=…)" for name in names if name not in own}
