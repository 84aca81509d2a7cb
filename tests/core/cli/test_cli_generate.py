"""generate: the file, what is printed, the plan, and interrupted runs."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import processes
import pytest
from PIL import Image

import fo_onnx

torch = pytest.importorskip("torch")

SCRIPT = [sys.executable, "-c", "from fo_onnx.cli.main import main; main(prog_name='fo-onnx')"]


def test_from_a_file(run, work: Path) -> None:
    result = run("generate", "d.onnx", "--data", "x.npy", "--labels", "y.npy", "-o", "o.parquet", "--limit", 100,
                 "--meta", "run=3", "--meta", "who=me", "--keep-logits")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    for line in ("rows     100 written", "classes  10: a, b", "file     o.parquet (", "runner   onnx on cpu, batch ",
                 "(at export)", "metrics  accuracy ", " rows/s ("):  # fmt: skip
        assert line in result.stdout
    dists = fo_onnx.load("o.parquet")
    assert np.array_equal(dists.probs, fo_onnx.load("d.parquet").probs)
    assert dists.meta["user"] == {"run": 3, "who": "me"}
    assert dists.logits is not None


def test_from_a_reference_as_json(run, work: Path) -> None:
    Path("ids.txt").write_text("\n".join(f"digit-{i}" for i in range(600)))
    result = run("generate", "app:trained", "--data", "app:dataset", "-o", "o.json", "--ids", "ids.txt", "--json",
                 "--class-names", "a,b,c,d,e,f,g,h,i,j")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["path"], document["rows"], document["classes"]) == ("o.json", 600, 10)
    assert document["meta"]["runner"]["kind"] == "onnx"
    assert document["meta"]["parity"]["passed"] is True
    assert document["metrics"]["accuracy"] > 0.95
    written = fo_onnx.load("o.json")
    assert list(written)[:2] == ["digit-0", "digit-1"]
    assert np.array_equal(written.labels, np.load("y.npy"))


@pytest.mark.exports_cost_time
def test_a_small_job_runs_natively_and_says_so(run, work: Path) -> None:
    result = run("generate", "app:trained", "--data", "x.npy", "-o", "o.npz")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert "runner   native on cpu, batch 256, 1 session of " in result.stdout
    assert "because a small job: 600 rows take " in result.stdout
    assert "natively, an export of torch about 3.0 s" in result.stdout


def test_steps_before_the_first_row_are_said_if_progress_is_shown(run, work: Path) -> None:
    result = run("generate", "app:trained", "--data", "x.npy", "-o", "o.npz", "--progress")
    assert result.exit_code == 0, result.stderr
    steps = [line for line in result.stderr.splitlines() if line.startswith("fo-onnx: ")]
    assert steps == [
        "fo-onnx: importing app:trained …", "fo-onnx: exporting DigitNet from torch to ONNX …",
        "fo-onnx: comparing DigitNet with its export on 256 rows …",
    ]  # fmt: skip
    assert "fo-onnx" not in result.stdout


def test_labels_are_left_out(run, work: Path) -> None:
    np.savez("rows.npz", x=np.load("x.npy"), label=np.full(600, -1))
    result = run("generate", "d.onnx", "--data", "rows.npz", "-o", "o.npz")
    assert result.exit_code == 1
    assert "its label -1 is no class" in result.stderr
    assert "leave the labels out with --no-labels." in result.stderr
    assert run("generate", "d.onnx", "--data", "rows.npz", "-o", "o.npz", "--no-labels").exit_code == 0
    assert fo_onnx.load("o.npz").labels is None
    both = run("generate", "d.onnx", "--data", "x.npy", "--labels", "y.npy", "--no-labels", "-o", "o.npz")
    assert both.exit_code == 2


def test_a_fallback_is_one_line(run, work: Path) -> None:
    result = run("generate", "app:doubting", "--data", "x.npy", "-o", "o.npz", "--limit", 64)
    assert result.exit_code == 0, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("fo-onnx: warning: Doubting runs natively, not in ONNX: ")
    assert "runner   native on cpu" in result.stdout
    assert "because " in result.stdout


def test_a_callable_says_why_it_is_native(run, work: Path) -> None:
    result = run("generate", "app:linear", "--data", "x.npy", "-o", "o.npz")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert "because a plain callable has no graph that could become ONNX" in result.stdout
    result = run("generate", "app:linear", "--data", "x.npy", "-o", "o2.npz", "--runner", "onnx")
    assert result.exit_code == 1
    assert (
        "fo-onnx: error: a plain callable has no graph that could become ONNX. Give the model of its framework instead"
        in result.stderr
    )


def test_bad_rows(run, work: Path) -> None:
    rows = np.load("x.npy")[:50]
    rows[7] = np.nan
    np.save("bad.npy", rows)
    result = run("generate", "d.onnx", "--data", "bad.npy", "-o", "o.parquet")
    assert result.exit_code == 1
    assert "row 7 (id 7)" in result.stderr
    assert "--on-error skip" in result.stderr
    result = run("generate", "d.onnx", "--data", "bad.npy", "-o", "o.parquet", "--on-error", "record", "--overwrite")
    assert result.exit_code == 0, result.stderr
    assert "rows     49 written, 1 quarantined; see o.parquet.errors.jsonl" in result.stdout
    assert json.loads(Path("o.parquet.errors.jsonl").read_text())["position"] == 7
    result = run("generate", "d.onnx", "--data", "bad.npy", "-o", "folder", "--on-error", "record")
    assert "rows     49 written, 1 quarantined; see folder/errors.jsonl" in result.stdout
    assert json.loads(Path("folder/errors.jsonl").read_text())["position"] == 7


def test_images(run, work: Path) -> None:
    from PIL import Image

    for name in "ab":
        (work / "images" / name).mkdir(parents=True)
        for i in range(4):
            pixels = np.full((12, 12), 40 * (i + 1) if name == "a" else 255 - 40 * i, np.uint8)
            Image.fromarray(pixels).save(work / "images" / name / f"{i}.png")
    result = run("generate", "d.onnx", "--data", "images", "-o", "o.parquet", "--resize", "8", "--mode", "L",
                 "--mean", "0.5", "--std", "0.5")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    dists = fo_onnx.load("o.parquet")
    assert next(iter(dists)) == "a/0.png"
    assert dists.meta["data"]["preprocessing"]["mean"] == [0.5]


@pytest.mark.parametrize("target", ["o.parquet", "o.json", "o"])
def test_the_plan_writes_nothing(run, work: Path, target: str) -> None:
    before = sorted(work.rglob("*"))
    result = run("generate", "d.onnx", "--data", "x.npy", "--labels", "y.npy", "-o", target, "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert sorted(p for p in work.rglob("*") if "__pycache__" not in p.parts) == before
    assert (document["rows"], document["classes"], document["runner"], document["device"]) == (600, 10, "onnx", "cpu")
    assert document["total_s"] == pytest.approx(600 / document["rows_per_s"])
    run("generate", "d.onnx", "--data", "x.npy", "--labels", "y.npy", "-o", target)
    size = sum(f.stat().st_size for f in [work / target, *(work / target).rglob("*")] if f.is_file())
    assert size / 2 < document["output_bytes"] < size * 2


def test_the_plan_in_words_and_without_a_target(run, work: Path) -> None:
    result = run("generate", "app:trained", "--data", "app:dataset", "--dry-run", "--batch-size", 100)
    assert result.exit_code == 0, result.stderr
    for line in ("plan     nothing was written", "rows     600", "batch 100", "parity   passed", "output   in memory, about",
                 "rows/s by one batch", "with the model opened"):  # fmt: skip
        assert line in result.stdout


def test_the_plan_refuses_what_the_run_would(run, work: Path) -> None:
    result = run("generate", "d.onnx", "--data", "x.npy", "-o", "d.parquet", "--dry-run")
    assert result.exit_code == 1
    assert "it is there already. Replace it with --overwrite" in result.stderr
    np.save("none.npy", np.empty((0, 1, 8, 8), np.float32))
    result = run("generate", "d.onnx", "--data", "none.npy", "--dry-run")
    assert result.exit_code == 1
    assert "the data hold no row that could be run" in result.stderr


def make_class_folders(names: str) -> None:
    for name in names:
        Path("images", name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(Path("images", name, "1.png"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["d.onnx", "--data", "nan.npy"], "row 0 (id 0): its output is no distribution"),
        (["unnamed.onnx", "--data", "images", "--mode", "L"], "which column is which cannot be determined"),
        (["d.onnx", "--data", "images", "--mode", "L"], "the data has the class(es) 'x', 'y'"),
        (["d.onnx", "--data", "x.npy", "--labels", "wrong.npy"], "its label 99 is no class; the model has 10 classes"),
        (["d.onnx", "--data", "x.npy", "--labels", "few.npy"], "has 599 entries, but the data have 600 rows"),
        (["d.onnx", "--data", "x.npy", "--ids", "twice.txt"], "twice"),
        (["d.onnx", "--data", "x.npy", "--class-names", "a,b"], "class"),
        (["d.onnx", "--data", "x.npy", "--max-errors", "-1"], "--max-errors"),
        (["d.onnx", "--data", "x.npy", "--timeout", "0"], "--timeout"),
        (["d.onnx", "--data", "x.npy", "--limit", "-3"], "--limit"),
        (["probs.onnx", "--data", "x.npy", "--keep-logits"], "logits"),
        (
            ["d.onnx", "--data", "x.npy", "--resume", "-o", "d.parquet"],
            "d.parquet is the finished result of another run",
        ),
        (["d.onnx", "--data", "x.npy", "-o", "missing/o.parquet"], "missing"),
        (["d.onnx", "--data", "x.npy", "-o", ".parquet"], ".parquet"),
        (["d.onnx", "--data", "x.npy", "-o", "o.txt"], ".txt"),
        (["d.onnx", "--data", "x.npy", "--on-error", "record", "-o", "-"], "-"),
    ],
)
def test_the_plan_and_the_run_refuse_with_the_same_words(run, work: Path, arguments: list[str], message: str) -> None:
    np.save("nan.npy", np.full((3, 1, 8, 8), np.nan, np.float32))
    np.save("wrong.npy", np.full(600, 99))
    np.save("few.npy", np.zeros(599, int))
    Path("twice.txt").write_text("twice\n" * 600)
    make_class_folders("xy")
    x = np.load("x.npy")[:20]
    head = {"unnamed.onnx": [], "probs.onnx": [torch.nn.Softmax(1)]}.get(arguments[0])
    if head is not None:
        fo_onnx.export(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3), *head), x, arguments[0])
    target = [] if "-o" in arguments else ["-o", "o.parquet"]
    plan, real = (run("generate", *arguments, *target, *more) for more in (["--dry-run"], []))
    assert (plan.exit_code, plan.stderr) == (real.exit_code, real.stderr)
    assert plan.exit_code in (1, 2)
    assert message in plan.stderr


def test_the_plan_of_a_resumed_run(run, work: Path) -> None:
    arguments = ["generate", "d.onnx", "--data", "app:Interrupted", "-o", "o.parquet"]
    assert run(*arguments, "--batch-size", 50).exit_code == 130
    before = {p: p.read_bytes() for p in Path("o.parquet.partial").rglob("*") if p.is_file()}
    plan = run(*arguments, "--resume", "--dry-run", "--json")
    assert plan.exit_code == 0, plan.stderr
    assert json.loads(plan.stdout)["batch_size"] == 50
    other = run("generate", "d.onnx", "--data", "nan.npy", "-o", "o.parquet", "--resume", "--dry-run")
    assert other.exit_code == 1
    np.save("other.npy", np.load("x.npy")[::-1])
    other = [
        run("generate", "d.onnx", "--data", "other.npy", "-o", "o.parquet", "--resume", *m) for m in (["--dry-run"], [])
    ]
    assert other[0].exit_code == 1
    assert other[0].stderr.split(" resume it with:")[0] in other[1].stderr
    assert {p: p.read_bytes() for p in Path("o.parquet.partial").rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("-o o.npy --resume --overwrite", "--resume and --overwrite exclude each other."),
        ("", "Missing option '-o' / '--out'; only --dry-run goes without."),
        ("-o o.npy --batch-size many", "'many' is not understood; a number of rows, or auto, was expected."),
        ("-o o.npy --meta novalue", "'novalue' is not understood; key=value was expected."),
        ("-o o.npy --runner hybrid", "'hybrid' is not one of 'auto', 'onnx', 'native'."),
        ("-o o.npy --mean a,b", "'a,b' is not understood; one number or one per channel was expected."),
    ],
)
def test_wrong_usage(run, work: Path, arguments: str, message: str) -> None:
    result = run("generate", "d.onnx", "--data", "x.npy", *arguments.split())
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("-o o.npy --device gpu7x", "--device gpu7x is not known"),
        ("-o o.npy --batch-size 0", "--batch-size 0 is not usable"),
        ("-o o.npy --temperature 0", "--temperature 0.0 is not usable"),
        ("-o o.xyz", "no format has the suffix '.xyz'"),
        ("-o o.npy --class-names a,b", "class"),
        ("-o o.npy --labels x.npy", "labels that are no class"),
        ("-o d.parquet", "Replace it with --overwrite, or choose another name."),
    ],
)
def test_errors(run, work: Path, arguments: str, message: str) -> None:
    result = run("generate", "d.onnx", "--data", "x.npy", *arguments.split())
    assert result.exit_code == 1
    assert result.stderr.startswith("fo-onnx: error: ")
    assert message in result.stderr


def test_an_interrupt_tells_how_to_go_on(run, work: Path) -> None:
    result = run(
        "generate", "d.onnx", "--data", "app:Interrupted", "-o", "o.parquet", "--batch-size", 50, "--meta", "a=b c"
    )
    assert result.exit_code == 130
    first, second = result.stderr.splitlines()
    assert first.startswith("fo-onnx: interrupted. The ")
    assert "finished rows are kept in o.parquet.partial; --resume continues from them." in first
    assert second == (
        "fo-onnx: resume it with: fo-onnx generate d.onnx --data app:Interrupted -o o.parquet --batch-size 50 --meta 'a=b c' --resume"
    )


SLOW = """
import time
import numpy as np


class Slow:
    rows = np.load("x.npy")

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, row):
        time.sleep(0.006)
        return self.rows[row]
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_is_130_and_the_resumed_file_is_the_same(work: Path, ending: signal.Signals) -> None:
    (work / "slow.py").write_text(SLOW)
    arguments = ["generate", "d.onnx", "--data", "slow:Slow", "--batch-size", "32", "-o"]
    process = processes.start([*SCRIPT, *arguments, "o.parquet"])
    processes.wait_for_run(Path("o.parquet"))
    process.send_signal(ending)
    begun = time.monotonic()
    out, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert time.monotonic() - begun < 10
    assert out == ""
    assert "Traceback" not in said
    assert not Path("o.parquet").exists()
    assert 0 < len(fo_onnx.load("o.parquet.partial")) < 600
    command = said.strip().splitlines()[-1].removeprefix("fo-onnx: resume it with: ")
    process = subprocess.run([*SCRIPT, *shlex.split(command)[1:]], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert not Path("o.parquet.partial").exists()
    whole = fo_onnx.generate("d.onnx", np.load("x.npy"), batch_size=32)
    resumed = fo_onnx.load("o.parquet")
    assert resumed.equals(whole)


@pytest.mark.parametrize("out", [".", "/", ""])
def test_a_target_without_a_name(run, work: Path, out: str) -> None:
    result = run("generate", "d.onnx", "--data", "x.npy", "-o", out)
    assert result.exit_code == 1
    assert "the name of a file or folder was expected, such as net.parquet" in result.stderr


def test_the_way_on_from_a_bad_row_goes_past_it(run, work: Path) -> None:
    rows = np.load("x.npy")
    rows[500] = np.nan
    np.save("bad.npy", rows)
    result = run("generate", "d.onnx", "--data", "bad.npy", "-o", "bad.parquet")
    command = result.stderr.strip().splitlines()[-1].split("resume it past such rows with: fo-onnx ")[1]
    assert run(*shlex.split(command)).exit_code == 0
    assert len(fo_onnx.load("bad.parquet")) == len(rows) - 1
