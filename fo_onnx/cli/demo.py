"""``fo-onnx demo``: the whole way on real data, in half a minute."""

from __future__ import annotations

import importlib
import statistics
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from ..errors import FoOnnxError, ParityError, PluginError, StoreError, StoreExistsError
from .shared.options import PATH, common
from .shared.output import pairs, rate_text, say, show, size_of, size_text, time_text
from .shared.records import metrics_lines

CLASS_NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
MODEL_NAME = "digits of the fo-onnx demo"
"""By which the files of an earlier demo are known."""
FILES = ("digits.onnx", "train.parquet", "train.json", "held-out.parquet", "held-out.json")
TURNS = 5
REST_S = 0.05
TIMED_COPIES = 2
LEAST_CERTAIN = 5
SHADES = " .:-=+*#%@"
_BAR = 20
Array = NDArray[Any]


@click.command()
@click.option("--out", type=PATH, default=Path("demo"), show_default=True, metavar="FOLDER", help="Where the files go.")
@common
def command(out: Path) -> None:
    """Train, export, verify and generate on scikit-learn's digits, in half a minute.

    Files of an earlier demo in FOLDER are replaced; if other files have their names, nothing is done.
    """
    from .. import api, store

    begun = time.perf_counter()
    torch_demo = _import_torch_demo()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise StoreError(f"the demo writes to the folder {out}, which cannot be made: {err.strerror}.") from err
    _require_own(out)
    # Train.
    images, labels = torch_demo.digits()
    train, held_out = torch_demo.splits(len(images))
    say(f"training a small convolutional net on {len(train)} of scikit-learn's {len(images)} digits ...")
    net = torch_demo.train(images[train], labels[train])
    say(f"trained ({time_text(time.perf_counter() - begun)}); exporting to ONNX ...")
    # Export, and compare on digits that neither training nor export has seen.
    model = api.export(
        net, images[train], out / "digits.onnx", class_names=CLASS_NAMES, model_name=MODEL_NAME, overwrite=True
    )
    parity = api.verify(model, net, images[held_out])
    if not parity.passed:
        raise ParityError(f"comparing {model.path} with the net on held-out digits: {parity.verdict()}.")
    # Generate, in two formats.
    files, results = [model.path], {}
    for split, rows in (("train", train), ("held-out", held_out)):
        target = out / f"{split}.parquet"
        results[split] = api.generate(
            model, images[rows], labels=labels[rows], ids=rows, out=target, overwrite=True, progress=False
        )
        files += [target, store.save(results[split], out / f"{split}.json", overwrite=True)]
    say("measuring the throughput of torch and of ONNX in turns ...")
    speed = {**_measure_throughput(net, model, images), "max_tv": parity.max_tv}
    # Print.
    metrics = {split: dists.metrics() for split, dists in results.items()}
    uncertain = _least_certain(results["held-out"])
    scores = [(split, [f"{m['rows']} rows", *(metrics_lines(m) or [])]) for split, m in metrics.items()]
    rates = {name: rate_text(rows_per_s) for name, rows_per_s in speed["rows_per_s"].items()}
    ratio = speed["ratio"]
    gain = (
        f"ONNX is {ratio['median']:.2f} times as fast ({ratio['min']:.2f} to {ratio['max']:.2f} over {TURNS} turns of "
        f"{speed['rows']} rows; the outputs agree within {speed['max_tv']:.1e})"
    )
    text = "\n\n".join(
        (
            "Parity: the ONNX file against torch, on held-out digits\n" + parity.table(),
            "Metrics\n" + pairs(scores),
            "Throughput\n" + pairs([("torch, native", rates["torch"]), ("ONNX", [rates["onnx"], gain])]),
            f"The {len(uncertain)} least certain held-out digits",
            *(_picture(images[u["id"], 0], u) for u in uncertain),
            "Files\n" + pairs([(str(f), size_text(size_of(f))) for f in files]),
            f"Read them with fo_onnx.load({str(out / 'held-out.parquet')!r}), or look: fo-onnx inspect {out / 'held-out.parquet'}",
        )
    )
    document = {
        "files": [str(f) for f in files], "parity": parity.to_dict(), "metrics": metrics, "throughput": speed,
        "least_certain": uncertain, "seconds": time.perf_counter() - begun,
    }  # fmt: skip
    show(document, text)
    say(f"done in {time_text(time.perf_counter() - begun)}.")


def _require_own(folder: Path) -> None:
    """Raise a `StoreExistsError` if a file of the demo's names is not of an earlier demo."""
    from .. import store
    from ..models.onnx_model import OnnxModel

    for path in (folder / name for name in FILES):
        if not path.exists() and not path.is_symlink():
            continue
        try:
            name = OnnxModel.open(path).spec.name if path.suffix == ".onnx" else store.load(path).meta["model"]["name"]
        except (FoOnnxError, KeyError, TypeError):
            name = None
        if name != MODEL_NAME or path.is_symlink():
            raise StoreExistsError(
                f"the demo writes {path}, and the file that is there is not of an earlier demo. Choose another folder with "
                "--out."
            )


def _import_torch_demo() -> ModuleType:
    """Return the part of the demo that knows torch. Raises `PluginError` if torch or scikit-learn is not installed."""
    try:
        importlib.import_module("sklearn.datasets")
        return importlib.import_module("fo_onnx_torch.demo")
    except ImportError as err:
        raise PluginError(
            f"the demo needs torch and scikit-learn, and {err.name or err} is missing: pip install 'fo-onnx[demo]'."
        ) from err


def _measure_throughput(net: Any, model: Any, images: Array) -> dict[str, Any]:
    """Return the rows per second of both ways through `fo_onnx.Engine.generate`, measured in turns."""
    from ..engine import Engine

    rows = np.tile(images, (TIMED_COPIES, 1, 1, 1))
    seconds: dict[str, list[float]] = {"torch": [], "onnx": []}
    with Engine(net, runner="native") as in_torch, Engine(model, runner="onnx") as in_onnx:
        engines = {"torch": in_torch, "onnx": in_onnx}
        for engine in engines.values():
            engine.generate(rows, progress=False)  # warms up
        # Both ways in turns, so that a busy machine slows both.
        for _ in range(TURNS):
            for name, engine in engines.items():
                time.sleep(REST_S)
                begun = time.perf_counter()
                engine.generate(rows, progress=False)
                seconds[name].append(time.perf_counter() - begun)
    ratios = [a / b for a, b in zip(seconds["torch"], seconds["onnx"], strict=True)]
    return {
        "rows": len(rows), "turns": TURNS,
        "rows_per_s": {name: len(rows) / statistics.median(s) for name, s in seconds.items()},
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
    }  # fmt: skip


def _least_certain(dists: Any) -> list[dict[str, Any]]:
    """Return the rows of the highest entropy, as JSON types."""
    from ..distributions.probabilities import entropy

    ids, probs, labels = dists.ids, dists.probs, dists.labels
    nats = entropy(probs)
    return [
        {"id": int(ids[i]), "label": int(labels[i]), "predicted": int(probs[i].argmax()), "entropy": float(nats[i]),
         "probs": [float(p) for p in probs[i]]}
        for i in np.argsort(-nats, kind="stable")[:LEAST_CERTAIN].tolist()
    ]  # fmt: skip


def _picture(image: Array, row: dict[str, Any]) -> str:
    """Return a digit as text, with its distribution as bars to the right."""
    shades = np.clip((image * len(SHADES)).astype(int), 0, len(SHADES) - 1)
    lines = ["".join(SHADES[s] * 2 for s in line) for line in shades.tolist()]
    lines = ["", *lines, ""]
    bars = [f"{name:<6}{p:6.3f} {'#' * round(p * _BAR)}" for name, p in zip(CLASS_NAMES, row["probs"], strict=True)]
    label, predicted = CLASS_NAMES[row["label"]], CLASS_NAMES[row["predicted"]]
    title = f"row {row['id']}: labelled {label}, most probably {predicted}, entropy {row['entropy']:.3f} nats"
    return "\n".join((title, *(f"  {line:<18}|  {bar}".rstrip() for line, bar in zip(lines, bars, strict=True))))
