"""Graphs of mixtures hold every expert and say what the mixture says, for any number of rows."""

import importlib.util
import re

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError, MoebiusError
from moebius.kit.registry import find, kinds
from moebius.storage import export as exporting

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in exporting.NEEDED),
    reason="onnx, onnxscript or onnxruntime is not installed: pip install 'moebius[export]'",
)
quiet = pytest.mark.filterwarnings("ignore:`isinstance.treespec:FutureWarning")  # of torch.export, about itself
BATCHES = (1, 3, 64, 1000)
E, D, C = 4, 6, 3
ROUTERS = {
    "dselect_k": {"k": 2, "experts": E},
    "heads": {"router": mb.routers.TopK(2), "heads": 2},
    "cut": {"router": mb.routers.Soft()},
    "per_class": {"classes": C},
    "top_k": {"k": 2},
    "group_top_k": {"k": 2},
    "noisy_top_k": {"k": 2},
    "switch": {"next_best": True, "eval_capacity": 1.0},
}


@pytest.fixture(autouse=True)
def _same_numbers():
    torch.manual_seed(0)


def mixture(router="top_k", experts=None, features=D, **options):
    chosen = find("routers", router)(**ROUTERS.get(router, {}))
    gate = nn.Sequential(nn.Flatten(), nn.Linear(features, chosen.gate_outputs(E)))
    return mb.Mixture(gate, experts or [nn.Linear(D, C) for _ in range(E)], chosen, **options)


def mlp():
    return mb.experts.MLP(D, C, hidden=(8,))


def pictures(expert, router="top_k", **options):
    return mixture(router, expert, features=2 * 64, **options), (2, 8, 8)


def vgg():
    return mb.experts.VGG(2, 8, C, filters=[[4], [4]], dropout=0.1)


def position_mixture():
    gate = mb.gates.UNet(3, 2, filters=[4])
    experts = [mb.experts.UNet(3, C, filters=[4, 4]) for _ in range(2)]
    return mb.layers.PositionMixture(gate, experts, mb.routers.TopK(1), channel_axis=1)


def several_gates(router=None):
    gates = {task: mb.gates.Linear(D, E) for task in ("click", "price")}
    towers = {"click": mb.experts.Linear(8, 2), "price": mb.experts.Linear(8, 1)}
    return mb.layers.MultiGateMixture(gates, mb.Stack([linear_expert() for _ in range(E)]), towers, router)


def linear_expert(features=D):
    return mb.experts.Linear(features, 8)


def level(features=D, is_last=True):
    gates = {task: mb.gates.Linear(features, 3) for task in ("click", "price")}
    gates |= {} if is_last else {"shared": mb.gates.Linear(features, 4)}
    own = {task: [linear_expert(features)] for task in ("click", "price")}
    towers = {task: mb.experts.Linear(8, 1) for task in ("click", "price")} if is_last else None
    shared = [linear_expert(features) for _ in range(2)]
    return mb.layers.CGC(gates, own, shared, towers, mb.routers.TopK(2))


SEVERAL = {
    "several gates": several_gates,
    "several sparse gates": lambda: several_gates(mb.routers.TopK(1)),
    "own experts": level,
    "levels": lambda: mb.layers.PLE([level(is_last=False), level(8)]),
}
MODELS = {
    "linear": lambda: (mixture(experts=[mb.experts.Linear(D, C) for _ in range(E)]), (D,)),
    "mlp_stack": lambda: (mixture("switch", mb.Stack([mlp() for _ in range(E)])), (D,)),
    "conv": lambda: pictures([mb.experts.Conv(2, 8, C, (4,), (8,)) for _ in range(E)]),
    "conv_stack": lambda: pictures(mb.Stack([mb.experts.Conv(2, 8, C, (4,), (8,)) for _ in range(E)])),
    "vgg": lambda: pictures([vgg() for _ in range(E)], "argmax"),
    "log_mixture": lambda: (mixture(combine=mb.LogMixture()), (D,)),
    "components": lambda: (mixture(combine=mb.combine.Components()), (D,)),
    "nested": lambda: (mixture("argmax", [mixture(), mlp(), mlp(), mixture("soft")]), (D,)),
    "sparse_ffn": lambda: (mb.layers.SparseFFN(8, 16, experts=E, k=2, shared=1), (8,)),
    "positions": lambda: (position_mixture(), (3, 8, 8)),
    "tokens": lambda: (mb.layers.SparseFFN(8, 16, experts=E, k=1, activation="swiglu"), (5, 8)),
}


def rows(shape, count, seed=0):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed + count))


def graph_of(model, shape):
    return torch.export.export(model.eval(), (rows(shape, 2),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))


def run(path, x):
    import onnxruntime

    return torch.from_numpy(onnxruntime.InferenceSession(path).run(None, {"x": x.numpy()})[0])


def assert_close(given, expected):
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5)


@quiet
@pytest.mark.parametrize("name", MODELS)
def test_torch_exports_every_expert(name):
    model, shape = MODELS[name]()
    program = graph_of(model, shape)
    used = {node.target for node in program.graph.nodes if node.op == "placeholder" and node.users}
    signature = program.graph_signature.inputs_to_parameters
    assert {signature[one] for one in used if one in signature} == {name for name, _ in model.named_parameters()}
    graph = program.module()
    with torch.no_grad():
        for count in BATCHES:
            x = rows(shape, count)
            assert_close(graph(x), model(x))


@quiet
@pytest.mark.parametrize("kind", kinds("routers"))
def test_torch_exports_every_router(kind):
    model = mixture(kind)
    graph = graph_of(model, (D,)).module()
    with torch.no_grad():
        for count in BATCHES:
            x = rows((D,), count)
            assert_close(graph(x), model(x))


@needs_onnx
@pytest.mark.parametrize(
    "name",
    [
        *("mlp_stack", "log_mixture", "nested", "sparse_ffn"),
        *(pytest.param(name, marks=pytest.mark.thorough) for name in ("conv_stack", "vgg", "positions")),
    ],
)
def test_onnx_holds_every_expert(name, tmp_path):
    import onnx

    model, shape = MODELS[name]()
    mb.export(model, rows(shape, 2), tmp_path / "moe.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["moe.onnx"]
    model.eval()
    with torch.no_grad():
        for count in BATCHES:
            x = rows(shape, count)
            assert_close(run(tmp_path / "moe.onnx", x), model(x))
    held = [torch.tensor(tensor.dims).prod() for tensor in onnx.load(tmp_path / "moe.onnx").graph.initializer]
    # Biases and scales may become parts of other tensors.
    assert sum(held) >= sum(parameter.numel() for parameter in model.parameters() if parameter.ndim > 1)


@quiet
@pytest.mark.parametrize("name", SEVERAL)
def test_torch_exports_several_outputs(name):
    model = SEVERAL[name]()
    graph = graph_of(model, (D,)).module()
    with torch.no_grad():
        for count in BATCHES:
            x = rows((D,), count)
            assert_close(graph(x), model(x))


@needs_onnx
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.thorough if name == "levels" else ()) for name in SEVERAL]
)
def test_onnx_has_an_output_for_each_task(name, tmp_path):
    import onnxruntime

    model, path = SEVERAL[name](), tmp_path / "moe.onnx"
    assert mb.export(model, rows((D,), 2), path) < 1e-5
    session = onnxruntime.InferenceSession(path)
    assert [output.name for output in session.get_outputs()] == ["click", "price"]
    with torch.no_grad():
        for count in BATCHES:
            x = rows((D,), count)
            for task, y in model.eval()(x).items():
                assert_close(torch.from_numpy(session.run([task], {"x": x.numpy()})[0]), y)


@needs_onnx
def test_an_output_needs_a_name_of_its_own(tmp_path):
    gates = {task: mb.gates.Linear(D, 2) for task in ("x", "y")}
    model = mb.layers.MultiGateMixture(gates, [linear_expert() for _ in range(2)])
    with pytest.raises(ArgumentError, match=r"^model: has an output called x") as caught:
        mb.export(model, rows((D,), 2), tmp_path / "moe.onnx")
    assert caught.value.fix is not None
    with pytest.raises(ArgumentError, match=r"^model: needs one tensor as its output, or several by name"):
        mb.export(Twice(), rows((D,), 2), tmp_path / "moe.onnx")


class Twice(nn.Module):
    def forward(self, x):
        return x, x


@needs_onnx
@pytest.mark.parametrize(
    "kind",
    ["expert_choice", *(pytest.param(kind, marks=pytest.mark.thorough) for kind in ("threshold", "dselect_k"))],
)
def test_onnx_holds_routers(kind, tmp_path):
    model = mixture(kind).eval()
    mb.export(model, rows((D,), 2), tmp_path / "moe.onnx")
    with torch.no_grad():
        for count in BATCHES:
            x = rows((D,), count)
            assert_close(run(tmp_path / "moe.onnx", x), model(x))


@needs_onnx
def test_a_saved_mixture_is_exported_as_it_is_and_left_as_it_was(tmp_path):
    moe = mb.Mixture(mb.gates.Linear(D, E), [mlp() for _ in range(E)], mb.routers.TopK(2), execution="loop")
    mb.save(moe, tmp_path / "moe")
    again = mb.load(tmp_path / "moe").train()
    execution = again.execution
    mb.export(again, rows((D,), 1), tmp_path / "deep" / "moe.onnx")
    assert again.training
    assert again.execution is execution
    x = rows((D,), 7)
    assert_close(run(tmp_path / "deep" / "moe.onnx", x), moe.eval()(x).detach())


@needs_onnx
def test_the_file_says_nothing_of_the_machine(tmp_path):
    mb.export(mixture(), rows((D,), 3), tmp_path / "moe.onnx")
    written = (tmp_path / "moe.onnx").read_bytes()
    assert b".py" not in written
    assert b"experts.3.weight" in written


@needs_onnx
def test_large_weights_lie_beside_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "LARGEST", 1)
    model = mixture(experts=[nn.Linear(D, 400) for _ in range(E)]).eval()
    mb.export(model, rows((D,), 3), tmp_path / "moe.onnx")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["moe.onnx", "moe.onnx.data"]
    x = rows((D,), 5)
    assert_close(run(tmp_path / "moe.onnx", x), model(x).detach())


class Counting(nn.Module):
    """Says something else of the second batch than a graph, which always says the same."""

    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Linear(D, C), 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x) + 1e-3 * self.calls


@needs_onnx
@quiet
def test_a_graph_that_says_something_else_replaces_nothing(tmp_path):
    path = tmp_path / "moe.onnx"
    path.write_text("the old one")
    with pytest.raises(MoebiusError, match="differ from the model's by") as raised:
        mb.export(mb.Mixture(nn.Linear(D, 2), [Counting(), nn.Linear(D, C)]), rows((D,), 3), path)
    assert raised.value.fix is not None
    assert path.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [path]


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


@needs_onnx
@quiet
def test_a_module_that_branches_on_values_is_named_as_the_reason(tmp_path):
    with pytest.raises(MoebiusError, match="cannot be written as a graph"):
        mb.export(mixture(experts=[Branching() for _ in range(E)]), rows((D,), 3), tmp_path / "moe.onnx")
    assert not list(tmp_path.iterdir())


@needs_onnx
@pytest.mark.parametrize(
    ("model", "x", "said"),
    [
        (mixture(), torch.zeros(0, D), "at least one row"),
        (mixture().bfloat16(), torch.zeros(2, D), "float32 or float64"),
        (mixture("hash"), torch.zeros(2, D), "hashes rows"),
    ],
)
def test_what_cannot_be_exported_is_said(model, x, said, tmp_path):
    with pytest.raises(ArgumentError, match=said):
        mb.export(model, x, tmp_path / "moe.onnx")


@needs_onnx
def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ArgumentError, match="a folder is there"):
        mb.export(mixture(), torch.zeros(2, D), tmp_path)


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "NEEDED", ("onnx_that_nobody_has",))
    with pytest.raises(MoebiusError, match="onnx_that_nobody_has") as raised:
        mb.export(mixture(), torch.zeros(2, D), tmp_path / "moe.onnx")
    assert re.search(r"pip install 'moebius\[export\]'", str(raised.value.fix))
