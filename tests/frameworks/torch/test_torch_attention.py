"""Attention in ONNX gives torch's rows: any number of axes, every kind of mask, and texts of no token."""

from __future__ import annotations

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.conversion.parity import row_spread
from fo_onnx.distributions.probabilities import total_variation
from fo_onnx.errors import ExportError

torch = pytest.importorskip("torch")
from torch_attention import CASES, Attends, as_bool, as_infinity, masks  # noqa: E402
from torch_cases import seeded  # noqa: E402
from torch_nets import ROWS, tokens, truth  # noqa: E402

QUICK = ("attention_bool_mask", "attention_five_axes", "attention_shared_keys")
OWN_KERNEL = "attention_module"
"""``nn.MultiheadAttention``, whose kernel in evaluation mode gives NaN for a text of no token, where ONNX gives a distribution."""
IN_ONNX = [n for n in CASES if n != OWN_KERNEL]


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in IN_ONNX])
def test_onnx_gives_torchs_rows(name: str) -> None:
    case = seeded(CASES[name])()
    expected = truth(case)
    assert row_spread(expected) >= 0.05, "rows this close together agree with anything"

    dists = fo.generate(case.model, case.data, runner="onnx", batch_size=7, **case.options)

    assert total_variation(expected, dists.probs).max() < case.tolerance


def test_a_module_with_a_kernel_of_its_own_runs_natively() -> None:
    case = seeded(CASES[OWN_KERNEL])()
    with pytest.warns(
        fo.FallbackWarning, match="zeros in 'mask', the exported model gives a distribution where the original"
    ):
        dists = fo.generate(case.model, case.data, **case.options)
    assert dists.meta["runner"]["kind"] == "native"
    assert total_variation(truth(case), dists.probs).max() < case.tolerance


@pytest.mark.parametrize("mask_of", [as_bool, as_infinity])
def test_texts_of_no_token_beyond_the_rows_that_are_compared(mask_of: object) -> None:
    torch.manual_seed(0)
    net = Attends(mask_of=mask_of).eval()
    ids, mask = np.tile(tokens(ROWS, 12), (15, 1)), np.tile(masks(), (15, 1))
    mask[:260] = 1
    with torch.no_grad():
        expected = torch.softmax(net(torch.from_numpy(ids), torch.from_numpy(mask)).double(), 1).numpy()

    dists = fo.generate(net, {"ids": ids, "mask": mask}, runner="onnx")

    assert (mask.sum(axis=1) == 0).any()
    assert total_variation(expected, dists.probs).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("opset", [20, 23])
def test_newer_operator_sets(opset: int, tmp_path) -> None:
    """From 23 on torch's exporter writes another operator, which takes fewer masks."""
    torch.manual_seed(0)
    case = CASES["attention_infinite_mask"]()

    model = fo.export(case.model, case.data, tmp_path / "net.onnx", opset=opset)

    assert total_variation(truth(case), fo.generate(model, case.data).probs).max() < 1e-5


def test_attention_that_draws_random_numbers(tmp_path) -> None:
    net = Attends(dropout_p=0.3).eval()

    with pytest.raises(ExportError, match=r"dropout_p=0\.3 in evaluation mode too.*pass dropout_p=0\.0"):
        fo.export(net, {"ids": tokens(ROWS, 12)}, tmp_path / "net.onnx")

    with pytest.warns(UserWarning, match=r"dropout_p=0\.3"):
        dists = fo.generate(net, {"ids": tokens(ROWS, 12)})
    assert dists.meta["runner"]["kind"] == "native"
