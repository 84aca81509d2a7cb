"""The group: help without imports, exit codes, warnings and errors as lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from fo_onnx.cli.main import COMMANDS, main
from fo_onnx.cli.shared.failures import in_options

SCRIPT = [sys.executable, "-c", "from fo_onnx.cli.main import main; main(prog_name='fo-onnx')"]


def test_help_lists_what_the_commands_say_of_themselves() -> None:
    ctx = click.Context(main)
    for name, line in COMMANDS.items():
        command = main.get_command(ctx, name)
        assert command is not None
        assert command.get_short_help_str(limit=200) == line


def test_every_command_has_json_and_debug() -> None:
    ctx = click.Context(main)
    for name in COMMANDS:
        command = main.get_command(ctx, name)
        assert command is not None
        flags = {flag for p in command.params for flag in p.opts}
        assert {"--json", "--debug"} <= flags, name


def test_every_option_is_explained_or_speaks_for_itself() -> None:
    ctx = click.Context(main)
    bare = set()
    for name in COMMANDS:
        command = main.get_command(ctx, name)
        assert command is not None
        bare |= {p.opts[0] for p in command.params if isinstance(p, click.Option) and not p.help}
    assert not bare


def test_help_imports_no_command_and_no_heavy_library() -> None:
    code = (
        "import sys\n"
        "from fo_onnx.cli.main import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print('LOADED', *sorted(sys.modules))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(process.stdout.partition("LOADED")[2].split())
    assert "fo_onnx.cli.main" in loaded
    assert loaded.isdisjoint(f"fo_onnx.cli.{name}" for name in COMMANDS)
    assert loaded.isdisjoint({"torch", "onnx", "onnxruntime", "pyarrow", "orjson", "tqdm", "PIL", "importlib.metadata"})
    assert "Commands:\n" in process.stdout
    assert "_FO_ONNX_COMPLETE=bash_source" in process.stdout


def test_version(run) -> None:
    import fo_onnx

    assert run("--version").stdout == f"fo-onnx {fo_onnx.__version__}\n"


def test_completion_is_there() -> None:
    env = {**os.environ, "_FO_ONNX_COMPLETE": "bash_source"}
    process = subprocess.run(SCRIPT, capture_output=True, text=True, env=env, check=True)
    assert "_fo_onnx_completion" in process.stdout
    env = {**os.environ, "_FO_ONNX_COMPLETE": "bash_complete", "COMP_WORDS": "fo-onnx gen", "COMP_CWORD": "1"}
    process = subprocess.run(SCRIPT, capture_output=True, text=True, env=env, check=True)
    assert process.stdout == "plain,generate\n"


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["generate"], ["check"], ["check", "a", "b"], ["inspect", "--no"]]
)
def test_wrong_usage_is_2(run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Try 'fo-onnx" in result.stderr


def test_an_error_is_one_line_and_1(run, work: Path) -> None:
    result = run("check", "nothing.parquet")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "fo-onnx: error: Checking nothing.parquet: nothing is there.\n"


def test_an_error_as_json(run, work: Path) -> None:
    result = run("check", "nothing.parquet", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "error": {"type": "StoreNotFoundError", "message": "Checking nothing.parquet: nothing is there.", "notes": []}
    }


def test_debug_shows_the_traceback(run, work: Path) -> None:
    result = run("check", "nothing.parquet", "--debug")
    assert result.exit_code == 1
    assert result.stderr.startswith("Traceback (most recent call last):\n")
    assert result.stderr.endswith("fo-onnx: error: Checking nothing.parquet: nothing is there.\n")


def test_what_was_not_foreseen_is_a_line_too(run, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(path: Path) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("fo_onnx.store.check", check)
    result = run("check", "d.parquet")
    assert result.exit_code == 1
    assert result.stderr == (
        "fo-onnx: error: unexpected ZeroDivisionError: division by zero. --debug shows where it came from.\n"
    )


def test_an_interrupt_elsewhere_is_130(run, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fo_onnx.store.check", check)
    result = run("check", "d.parquet")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "fo-onnx: interrupted.\n")
    result = run("check", "d.parquet", "--json")
    assert json.loads(result.stdout)["error"]["type"] == "KeyboardInterrupt"


def test_true_processes_give_the_exit_codes(work: Path) -> None:
    codes = {"check d.parquet": 0, "check nothing.parquet": 1, "check": 2}
    for arguments, code in codes.items():
        process = subprocess.run([*SCRIPT, *arguments.split()], capture_output=True, text=True)
        assert process.returncode == code, process.stderr
        assert "Traceback" not in process.stderr


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("say overwrite=True (--overwrite), or", "say --overwrite, or"),
        ("resume=True continues it, overwrite=True begins anew.", "--resume continues it, --overwrite begins anew."),
        ("with on_error='skip' or on_error='record'.", "with --on-error skip or --on-error record."),
        ("max_errors=3; the last", "--max-errors 3; the last"),
        ("say trust=True (--trust-pickle on the command line).", "say --trust-pickle."),
        ("labels= has 5 entries", "--labels has 5 entries"),
        ("timeout_s=0.5.", "--timeout 0.5."),
        ("model_kwargs= is no option", "model_kwargs= is no option"),
        (
            "Convert it with transform=, or choose with input_getter=lambda row: row[0].",
            "Convert it with transform=, or choose with input_getter=lambda row: row[0]. Functions are given in Python: transform= and "
            "input_getter= of fo_onnx.generate.",
        ),
        ("device=['cpu', 'cuda']: several", "--device ['cpu', 'cuda']: several"),
        ("resize=…, crop=…", "--resize, --crop"),
        ("so that it needs overwrite=False.", "so that it needs no --overwrite."),
    ],
)  # fmt: skip
def test_messages_speak_of_options(message: str, said: str) -> None:
    command = main.get_command(click.Context(main), "generate")
    assert in_options(command, message) == said


def test_messages_without_a_command_stay() -> None:
    assert in_options(None, "overwrite=True") == "overwrite=True"
