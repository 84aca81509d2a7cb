"""The command ``fo-onnx``: loads the command that is called, and no other."""

from __future__ import annotations

import importlib
import os
from typing import Any

import click

from ..control import command_start
from ..version import __version__
from .shared.failures import as_lines, escape_usage

COMMANDS = {
    "export": "Convert a model to an ONNX file that gives distributions, and compare the two.",
    "verify": "Compare an exported file with the model it came from, on real rows.",
    "generate": "Write one class distribution per row of a dataset.",
    "inspect": "Show what is in an ONNX file, a file of results or a run folder.",
    "bench": "Compare the ways to run MODEL on this machine, and say which is the quickest.",
    "convert": "Write a file of results in another format.",
    "check": "Read a file of results or a run folder whole, and say what is wrong with it.",
    "doctor": "Show versions, plugins, devices and the cache of exports, and what is wrong with them.",
    "demo": "Train, export, verify and generate on scikit-learn's digits, in half a minute.",
}
"""The commands and what each does: kept here so that ``--help`` imports none of them."""

HELP = """First-order data: one verified class distribution per sample, from any trained classifier, through ONNX.

\b
MODEL is package.module:attribute (an instance, a class, a factory or a function), or a file: .onnx, .pt, .pth, .keras,
      .h5, a SavedModel folder.
DATA  is a file (.npy, .npz, .parquet), a folder of images, or package.module:attribute.

Data go to standard output, messages to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""
COMPLETION = """\b
Completion of commands and options with the tab key, for this shell:
  bash   eval "$(_FO_ONNX_COMPLETE=bash_source fo-onnx)"
  zsh    eval "$(_FO_ONNX_COMPLETE=zsh_source fo-onnx)"
  fish   _FO_ONNX_COMPLETE=fish_source fo-onnx | source
For every shell, put the line into ~/.bashrc, ~/.zshrc or ~/.config/fish/config.fish."""


class LazyGroup(click.Group):
    """A group whose commands lie in modules of their names, and are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"{__package__}.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # The advice to resume a run repeats the command that began it.
        ctx.meta["fo_onnx.arguments"] = list(args)
        with escape_usage():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        # TensorFlow's C++ part greets on standard error, past every logger; read when it is imported.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        command_start.hand_over()
        with as_lines(ctx):
            return super().invoke(ctx)


@click.group(
    cls=LazyGroup,
    help=HELP,
    epilog=COMPLETION,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(__version__, prog_name="fo-onnx", message="%(prog)s %(version)s")
def main() -> None:
    """The command ``fo-onnx``."""
