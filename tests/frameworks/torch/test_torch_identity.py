"""Two torch models have one fingerprint if their classes, weights and plain attributes are the same."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from fresh_python import run_python

torch = pytest.importorskip("torch")
from fo_onnx_torch.identity import fingerprint  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch_nets import CASES, Mlp, make, normal, scripted  # noqa: E402

assert CASES


class Holding(nn.Module):
    """A net with a value of its own beside its weights."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.out, self.value = nn.Linear(4, 3), value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(x)


class Tripled(Holding):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(x) * 3


class Decorated(Holding):
    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(x) * 4


class Counting(Holding):
    """Counts its calls, for itself and for its class."""

    seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        Counting.seen += 1
        return self.out(x) * self.value


def test_a_count_of_calls_does_not_count() -> None:
    net = nn.Sequential(Counting(2.0))
    known = fingerprint(net)
    net(torch.zeros(2, 4))
    assert fingerprint(net) == known
    net[0].value = 3.0
    assert fingerprint(net) != known


class Buffered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(3), persistent=False)


def test_every_weight_and_buffer_counts() -> None:
    torch.manual_seed(0)
    net = Mlp()
    known = fingerprint(net)
    torch.manual_seed(0)
    assert fingerprint(Mlp()) == known
    for tensor in (net.body[2].bias, net.mean):
        with torch.no_grad():
            tensor[0] += 1e-6
        changed = fingerprint(net)
        assert changed != known
        known = changed


def test_a_buffer_that_is_not_persistent_counts() -> None:
    net = Buffered()
    known = fingerprint(net)
    net.scale[0] = 2
    assert not net.state_dict()
    assert fingerprint(net) != known


def test_the_mode_and_gradients_do_not_count() -> None:
    net = Mlp().eval()
    known = fingerprint(net)
    assert fingerprint(net.train()) == known
    net(torch.from_numpy(normal(3, 8))).sum().backward()
    assert fingerprint(net.requires_grad_(False)) == known


@pytest.mark.parametrize("name", ["closure", "partial", "bound_method"])
def test_the_weights_that_a_function_has_at_hand_count(name: str) -> None:
    case = make(name)
    known = fingerprint(case.model)
    assert fingerprint(make(name).model) == known
    owner = case.model.__self__ if name == "bound_method" else None
    owner = owner or (case.model.args[0] if name == "partial" else case.model.__closure__[0].cell_contents)
    assert fingerprint(case.model) == known
    owner.train(not owner.training)
    assert fingerprint(case.model) == known
    with torch.no_grad():
        next(owner.parameters())[0] += 1e-3
    assert fingerprint(case.model) != known


def test_the_code_of_a_function_and_its_closure_count() -> None:
    net = Mlp()

    def divide(by: Any) -> Any:
        return lambda x: net(x) / by

    def multiply(x: torch.Tensor) -> torch.Tensor:
        return net(x) * 2

    decorated = torch.no_grad()(lambda x: net(x) * 5)
    models = [divide(2), divide(3), divide(torch.tensor(2.0)), divide(torch.tensor(3.0)), multiply, net, decorated]
    assert len({fingerprint(m) for m in models}) == len(models)
    known = fingerprint(decorated)
    with torch.no_grad():
        net.mean += 1
    assert fingerprint(decorated) != known


@pytest.mark.parametrize(
    "value",
    [lambda v: v, lambda v: (1, (v, "a")), str, lambda v: torch.full((2,), v), lambda v: normal(2) * v,
     lambda v: lambda x: x * v, lambda v: functional.relu if v == 1 else functional.gelu,
     lambda v: nn.Sequential(nn.ReLU() if v == 1 else nn.Sigmoid()), lambda v: nn.Dropout(v / 4)],
    ids=["number", "tuple", "text", "tensor", "array", "function", "function of torch", "module", "number of a module"],
)  # fmt: skip
def test_plain_attributes_count(value: Callable[[float], Any]) -> None:
    assert fingerprint(Holding(value(1.0))) == fingerprint(Holding(value(1.0)))
    assert fingerprint(Holding(value(1.0))) != fingerprint(Holding(value(2.0)))


def test_what_models_fill_while_they_run_does_not_count() -> None:
    assert fingerprint(Holding([])) == fingerprint(Holding([torch.ones(2)]))


def test_the_code_of_forward_counts() -> None:
    def with_forward(function: Any) -> str:
        renamed = type("Holding", (Holding,), {"forward": function, "__module__": Holding.__module__})
        return fingerprint(renamed(None))

    forwards = (Holding.forward, Tripled.forward, Decorated.forward, torch.no_grad()(Tripled.forward))
    assert len({with_forward(f) for f in forwards}) == 4


def test_a_method_of_one_instance_counts() -> None:
    net, other = Holding(None), Holding(None)
    net.forward = types.MethodType(Tripled.forward, net)  # type: ignore[method-assign]
    assert fingerprint(net) != fingerprint(other)
    other.register_forward_hook(lambda module, args, output: output * 2)
    assert fingerprint(other) != fingerprint(Holding(None))


def test_a_module_that_holds_itself_has_a_fingerprint() -> None:
    net = Holding(None)
    net.value = (net, [net])
    assert fingerprint(net) == fingerprint(net)


def test_quantised_weights_count() -> None:
    def quantised(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(4, 3))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.ao.quantization.quantize_dynamic(net.eval(), {nn.Linear}, dtype=torch.qint8)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, on the storage of packed weights
        assert fingerprint(quantised(0)) == fingerprint(quantised(0))
        assert fingerprint(quantised(0)) != fingerprint(quantised(1))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_code_weights_and_constants_of_scripts_count() -> None:
    def multiplied(by: float) -> Any:
        constant = torch.full((3,), by)
        return torch.jit.trace(lambda x: x * constant + x, torch.ones(2, 3))

    def doubled(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    def tripled(x: torch.Tensor) -> torch.Tensor:
        return x * 3

    def net(seed: int, *after: nn.Module) -> Any:
        torch.manual_seed(seed)
        return scripted(nn.Sequential(Mlp(), *after).eval())

    makers = [
        lambda: multiplied(2.0), lambda: multiplied(3.0), lambda: torch.jit.script(doubled), lambda: torch.jit.script(tripled),
        lambda: net(0), lambda: net(1), lambda: net(0, nn.ReLU()), lambda: net(0, nn.Sigmoid()),
    ]  # fmt: skip
    known = [fingerprint(make()) for make in makers]
    assert len(set(known)) == len(makers)
    assert [fingerprint(make()) for make in makers] == known


def test_equal_in_another_process() -> None:
    program = (
        "import torch_nets\n"
        "from fo_onnx_torch.identity import fingerprint\n"
        "for name in ('mlp', 'bert', 'closure', 'partial', 'scripted'):\n"
        "    print(fingerprint(torch_nets.make(name).model))"
    )
    assert run_python(program, hash_seed=1) == run_python(program, hash_seed=2)


def test_a_scripted_lstm_has_an_identity() -> None:
    """It has no method called forward, but one for each kind of input."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTM(4, 4, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.cell(x)[0][:, -1]

    net = scripted(Recurrent().eval())
    assert fingerprint(net) == fingerprint(net)
    before = fingerprint(net)
    with torch.no_grad():
        net.cell.weight_ih_l0.add_(1)
    assert fingerprint(net) != before
