"""How much faster is a graph with fused nodes than the plain one in ONNX Runtime with its own optimisations, on one thread?

Seconds are those of the processor for the calling thread, which runs the whole session, so that other work on the machine counts for
little. Weights are random.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import fo_onnx as fo
from fo_onnx.fusions.fused_graph import fuse_graph
from fo_onnx.runtime.session import SLOWER_FUSIONS, runtime

from . import measuring

BATCHES = (1, 2, 4, 16)
TURNS = 30
TOKENS, WORDS = 128, 2000
CLOSE = 1e-4


def make_vit() -> tuple[Any, dict[str, np.ndarray]]:
    """ViT-Tiny of transformers, with its images."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768, num_labels=100
    )
    images = np.random.default_rng(0).standard_normal((max(BATCHES), 3, 224, 224)).astype(np.float32)
    return ViTForImageClassification(config).eval(), {"pixel_values": images}


def make_bert() -> tuple[Any, dict[str, np.ndarray]]:
    """BERT of 4 layers, 256 wide, with its tokens and masks."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        num_labels=10,
    )
    tokens = np.random.default_rng(0).integers(0, WORDS, (max(BATCHES), TOKENS))
    mask = np.ones_like(tokens)
    mask[::3, 90:] = 0
    return BertForSequenceClassification(config).eval(), {"input_ids": tokens, "attention_mask": mask}


def open_session(model: onnx.ModelProto, disabled: list[str]) -> Any:
    """A session on one thread, with ONNX Runtime's own optimisations but for some."""
    ort = runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    providers = ["CPUExecutionProvider"]
    return ort.InferenceSession(model.SerializeToString(), options, providers, disabled_optimizers=disabled)


def compare(name: str, model: onnx.ModelProto, rows: dict[str, np.ndarray]) -> list[measuring.Comparison]:
    """The fused graph and the plain one, whose outputs are the same, in turns at each batch size."""
    fused = fuse_graph(model)
    assert fused is not None
    sessions = open_session(fused.model, SLOWER_FUSIONS), open_session(model, [])
    comparisons = []
    for size in BATCHES:
        batch = {key: array[:size] for key, array in rows.items()}
        ours, plain = (session.run(None, batch)[0] for session in sessions)
        assert np.abs(ours - plain).max() < CLOSE
        seconds: tuple[list[float], list[float]] = ([], [])
        for _ in range(TURNS):
            for session, of_session in zip(sessions, seconds, strict=True):
                begun = time.thread_time()
                session.run(None, batch)
                of_session.append(time.thread_time() - begun)
        comparison = measuring.Comparison(f"{name}, batches of {size}", tuple(seconds[0]), tuple(seconds[1]))
        print(comparison.line(size))
        comparisons.append(comparison)
    return comparisons


def main() -> None:
    """Prints and writes the ratios."""
    comparisons = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, make in (("ViT-Tiny", make_vit), ("BERT, 4 layers", make_bert)):
            net, rows = make()
            path = fo.export(net, rows, Path(folder) / f"{name}.onnx", output="logits").path
            comparisons += compare(name, onnx.load(path), rows)
    measuring.write("fusions", comparisons, clock="processor seconds of the thread")


if __name__ == "__main__":
    main()
