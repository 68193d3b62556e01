"""A mixture comes back from its folder as it was; `moebius.testing` holds every component to being made anew."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import moebius as mb
from moebius.experts.adapter import Adapter
from moebius.kit.errors import ArgumentError, DataError
from moebius.kit.files import read_json
from moebius.lab.training.annealing import numbers_of
from moebius.storage import save as saving
from moebius.storage.header import read_header
from moebius.storage.spec import build, describe
from moebius.storage.tensors import tensor_holders


def test_what_a_schedule_may_change_is_what_it_may_have_changed():
    assert numbers_of(mb.routers.DSelectK(2, experts=4)) == ("gamma",)
    assert numbers_of(mb.routers.TopK(2, experts=4)) == ("k", "bias_rate")
    router = mb.routers.TopK(4)
    router.k = 1.75
    assert describe(router)["k"] == 2


X = torch.linspace(-1, 1, 24).view(6, 4)


class Net(nn.Module):
    """An expert that no registry knows."""

    def __init__(self, outputs=3):
        super().__init__()
        self.inner = nn.Linear(4, outputs)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x):
        return self.norm(self.inner(x)).tanh()


def doubled(x):
    return 2 * x


def whole(seed=0, **options):
    """A mixture of parts that are all known."""
    torch.manual_seed(seed)
    experts = [mb.experts.Linear(4, 3), mb.experts.MLP(4, 3, hidden=[5])]
    return mb.Mixture(mb.gates.Linear(4, 2), experts, **options)


def equal(one, other, x=X):
    with torch.no_grad():
        return torch.equal(one.eval()(x), other.eval()(x))


def test_a_mixture_of_known_parts_comes_back(tmp_path):
    moe = whole(router=mb.routers.Soft(temperature=2.0), combine=mb.LogMixture(renormalise=True), execution="loop")
    before = torch.get_rng_state()
    mb.save(moe, tmp_path / "deep" / "er")
    again = mb.load(tmp_path / "deep" / "er")
    assert torch.equal(torch.get_rng_state(), before)
    assert repr(again) == repr(moe)
    assert equal(again, moe)
    assert type(again.execution) is type(moe.execution) is mb.execution.Loop
    assert again.combine.renormalise
    assert not any(part.training for part in again.modules())


def test_the_file_has_a_key_for_each_expert_and_nothing_else_is_in_the_folder(tmp_path):
    moe = whole(execution="stacked")
    mb.save(moe, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    assert list(load_file(tmp_path / "model.safetensors")) == sorted(moe.state_dict())
    assert json.loads((tmp_path / "model.json").read_text())["spec"]["experts"][0] == {
        "kind": "linear",
        "features": 4,
        "classes": 3,
        "bias": True,
        "init": "torch",
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_numbers_keep_their_format(tmp_path, dtype):
    moe = mb.Mixture(mb.gates.Linear(4, 2), [mb.experts.Linear(4, 3), Net()]).to(dtype)
    mb.save(moe, tmp_path)
    again = mb.load(tmp_path, experts={1: Net()})
    assert {tensor.dtype for tensor in again.parameters()} == {dtype}
    assert again.experts[1].norm.running_mean.dtype == dtype
    assert again.experts[1].norm.num_batches_tracked.dtype == torch.long
    assert equal(again, moe, X.to(dtype))


def test_a_balance_bias_comes_back(tmp_path):
    moe = whole(router=mb.routers.TopK(1, bias_rate=0.5, experts=2))
    moe.train()(X[:5])  # five rows cannot be even
    mb.step_routers(moe)
    assert moe.router.bias.abs().sum() > 0
    mb.save(moe, tmp_path)
    assert torch.equal(mb.load(tmp_path).router.bias, moe.router.bias)


def test_modules_of_ones_own_are_given_and_filled(tmp_path):
    torch.manual_seed(0)
    gate = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    moe = mb.Mixture(gate, [Net(), mb.experts.Linear(4, 3), nn.Linear(4, 3)], combine=torch_sum)
    moe.train()(X)  # running statistics
    mb.save(moe, tmp_path)
    fresh = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    net = Net()
    again = mb.load(tmp_path, gate=fresh, experts=[net, None, nn.Linear(4, 3)], combine=torch_sum)
    assert again.gate is fresh
    assert again.experts[0] is net
    assert equal(again, moe)
    with pytest.raises(ArgumentError) as caught:
        mb.load(tmp_path, gate=fresh)
    places = "experts.0 (Net), experts.2 (Linear), combine (torch_sum)"
    expected = f"{places}: modules or functions of no known kind have to be supplied"
    assert str(caught.value).startswith(expected)
    call = (
        "mb.load("
        + repr(str(tmp_path))
        + ", gate=Sequential(…), combine=torch_sum(…), experts={0: Net(…), 2: Linear(…)})"
    )
    assert caught.value.fix == call


def torch_sum(values, routing):
    return mb.WeightedSum()(values, routing)


def test_adapters_and_nested_mixtures(tmp_path):
    torch.manual_seed(0)
    base = Adapter(nn.Linear(4, 3), frozen=True)
    first = Adapter(
        Net(2), transform=doubled, classes=[2, 0], total=3, fill=-1e9, activation="log_softmax", frozen=True
    )
    inner = mb.Mixture(mb.gates.Linear(4, 2), [base, Net()], mb.routers.Argmax())
    moe = mb.Mixture(mb.gates.Linear(4, 3), [first, inner, base], mb.routers.Heads(mb.routers.TopK(2), heads=1))
    mb.save(moe, tmp_path)
    parts = {
        0: Net(2),
        "experts.0.transform": doubled,
        "experts.1.experts.0": nn.Linear(4, 3),
        "experts.1.experts.1": Net(),
    }
    again = mb.load(tmp_path, experts=parts)
    assert equal(again, moe)
    assert again.experts[2] is again.experts[1].experts[0]
    assert again.experts[0].network is parts[0]
    assert not any(parameter.requires_grad for parameter in again.experts[0].parameters())
    assert again.experts[0].extra_repr() == first.extra_repr()
    with pytest.raises(ArgumentError, match=r"experts\.1: holds several parts of no known kind") as caught:
        mb.load(tmp_path, experts=[Net(2), Net(), None])
    assert caught.value.fix == "experts={'experts.1.experts.0.network': …, 'experts.1.experts.1': …}"
    with pytest.raises(ArgumentError) as caught:
        mb.load(tmp_path, experts={0: Net(2)})
    assert "experts.0.transform (doubled), experts.1.experts.0.network (Linear)" in str(caught.value)
    assert "{0: Net(…), 'experts.0.transform': doubled(…), " in caught.value.fix


def test_a_module_used_twice_is_stored_and_given_once(tmp_path):
    shared = Net()
    moe = mb.Mixture(mb.gates.Linear(4, 3), [shared, mb.experts.Linear(4, 3), shared])
    mb.save(moe, tmp_path)
    assert not [name for name in load_file(tmp_path / "model.safetensors") if name.startswith("experts.2")]
    assert json.loads((tmp_path / "model.json").read_text())["spec"]["experts"][2] == {"same_as": "experts.0"}
    again = mb.load(tmp_path, experts={0: Net()})
    assert again.experts[0] is again.experts[2]
    assert equal(again, moe)


def test_modules_of_ones_own_that_shared_a_part_are_filled_whether_they_share_it_still_or_not(tmp_path):
    def two(base_a, base_b):
        return [nn.Sequential(base_a, nn.Linear(5, 3)), nn.Sequential(base_b, nn.Linear(5, 3))]

    base, other = nn.Linear(4, 5), nn.Linear(4, 5)
    moe = mb.Mixture(mb.gates.Linear(4, 2), two(base, base))
    mb.save(moe, tmp_path)
    assert equal(mb.load(tmp_path, experts=two(other, other)), moe)
    assert equal(mb.load(tmp_path, experts=two(nn.Linear(4, 5), nn.Linear(4, 5))), moe)


def test_tensors_that_share_memory_are_stored_apart(tmp_path):
    first, second = mb.experts.Linear(4, 3), mb.experts.Linear(4, 3)
    second.linear.weight.data = first.linear.weight.data
    moe = mb.Mixture(mb.gates.Linear(4, 2), [first, second])
    mb.save(moe, tmp_path)
    assert equal(mb.load(tmp_path), moe)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"gate": nn.Linear(4, 2)}, "gate: is supplied, and that place needs nothing"),
        ({"experts": [None, Net()]}, "experts: needs an entry for each of the 3 experts"),
        ({"experts": [nn.Linear(4, 3), Net(), None]}, "experts.0: is supplied"),
        ({"experts": {3: Net()}}, "experts: needs indices 0 … 2 or paths"),
        ({"experts": {"experts.4.gate": Net()}}, "experts.4.gate: is supplied"),
        ({"experts": {1: Net(2)}}, "experts.1: its tensor inner.weight has the shape (3, 4) in the file, got (2, 4)"),
        (
            {"experts": {1: nn.Linear(4, 3)}},
            "experts.1: the module has a tensor weight, and the file has none, got ['weight', 'bias']",
        ),
        ({"experts": {1: nn.Identity()}}, "experts.1: the file has a tensor "),
        (
            {"experts": {1: nn.ModuleDict({**dict(Net().named_children()), "more": nn.Linear(1, 1)})}},
            "experts.1: the module has a tensor more.weight, and the file has none",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name_and_nothing_is_changed(tmp_path, given, said):
    moe = mb.Mixture(mb.gates.Linear(4, 3), [mb.experts.Linear(4, 3), Net().double(), mb.experts.Linear(4, 3)])
    mb.save(moe, tmp_path)
    parts = list(given["experts"].values()) if isinstance(given.get("experts"), dict) else []
    before = [{name: tensor.clone() for name, tensor in part.state_dict().items()} for part in parts]
    with pytest.raises(ArgumentError) as caught:
        mb.load(tmp_path, **given)
    assert str(caught.value).startswith(said)
    for part, tensors in zip(parts, before, strict=True):
        for name, tensor in part.state_dict().items():
            assert tensor.dtype == tensors[name].dtype
            assert torch.equal(tensor, tensors[name])


def test_a_new_save_takes_the_place_of_the_old_and_a_crash_leaves_the_one_or_the_other(tmp_path, monkeypatch):
    old, new = whole(0), whole(1)
    new.router = mb.routers.Argmax()
    mb.save(old, tmp_path)
    for crash_at, left in (("save_file", old), ("write_json", new)):
        with monkeypatch.context() as patched:
            patched.setattr(saving, crash_at, crash)
            with pytest.raises(KeyboardInterrupt):
                mb.save(new, tmp_path)
        assert equal(mb.load(tmp_path), left)
    mb.save(new, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    assert equal(mb.load(tmp_path), new)


def crash(*arguments):
    raise KeyboardInterrupt


def test_equal_models_give_equal_bytes_and_the_copy_for_people_says_the_same(tmp_path):
    for name in ("a", "b"):
        mb.save(whole(), tmp_path / name)
    for file in ("model.safetensors", "model.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert read_json(tmp_path / "a" / "model.json") == read_header(tmp_path / "a")
    (tmp_path / "a" / "model.json").unlink()
    assert equal(mb.load(tmp_path / "a"), whole())


def test_a_changed_number_a_truncated_file_and_other_tensors_are_noticed(tmp_path):
    mb.save(whole(), tmp_path)
    path = tmp_path / "model.safetensors"
    content = path.read_bytes()
    for damaged in (content[:-1] + bytes([content[-1] ^ 1]), content[:-8], b"x" * 100):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"model\.safetensors: is damaged") as caught:
            mb.load(tmp_path)
        assert caught.value.fix.startswith("a copy of the folder")


def test_what_is_no_saved_mixture_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no saved mixture") as caught:
        mb.load(tmp_path)
    assert caught.value.fix == f"mb.save(moe, {str(tmp_path)!r})"
    save_file(whole().state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="holds no saved mixture"):
        mb.load(tmp_path)
    for text in ("{", "[]", "{}"):
        save_file(whole().state_dict(), tmp_path / "model.safetensors", {"moebius": text})
        with pytest.raises(DataError, match=r"model\.safetensors: is damaged"):
            mb.load(tmp_path)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("schema",), 99, "is of schema 99, written by moebius 0"),
        (("spec", "gate", "kind"), "liner", "cannot make .no gates kind is called 'liner'"),
        (("spec", "gate", "room"), "data.sources", "cannot make .*no part of a mixture is of room"),
        (("spec", "gate", "colour"), "red", "cannot make .*colour"),
        (("spec", "experts", 0), {"same_as": "experts.1"}, "cannot make .experts.1."),
    ],
)
def test_a_spec_that_this_version_cannot_make(tmp_path, place, value, said):
    mb.save(whole(), tmp_path)
    header = read_header(tmp_path)
    inner = header
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path = tmp_path / "model.safetensors"
    save_file(load_file(path), path, {"moebius": json.dumps(header)})
    with pytest.raises(DataError, match=said):
        mb.load(tmp_path)


def test_a_mixture_that_0_1_saved_is_read_and_a_run_of_0_1_says_so(tmp_path):
    moe = whole()
    save_file(moe.state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    names = ("gate", "experts", "router", "combine", "execution")
    spec = {"kind": "mixture", **{name: describe(moe)[name] for name in names}}
    header = {"schema": 1, "moebius": "0.1.0", "sha256": digest, "mixture": spec, "aliases": {}}
    (tmp_path / "model.json").write_text(json.dumps(header))
    assert equal(mb.load(tmp_path), moe)
    (tmp_path / "model.json").write_text(json.dumps({**header, "sha256": "0"}))
    with pytest.raises(DataError, match="is damaged"):
        mb.load(tmp_path)
    run = {"schema": 1, "model": {"gate": {"kind": "linear"}}, "facts": {}, "classes": [], "domains": []}
    (tmp_path / "model.json").write_text(json.dumps(run))
    with pytest.raises(DataError, match=r"is a study's run of moebius 0\.1") as caught:
        mb.load(tmp_path)
    assert "pip install 'moebius==0.1.*'" in caught.value.fix


class Stateful(nn.Linear):
    def get_extra_state(self):
        return {"calls": 3}


def test_what_would_not_come_back_is_refused_before_a_file_is_touched(tmp_path):
    folder = tmp_path / "saved"
    altered = whole()
    altered.gate.linear = nn.Linear(4, 2, bias=False)
    stateful = mb.Mixture(mb.gates.Linear(4, 1), [Stateful(4, 3)])
    for wrong, said in [
        (altered, "gate: Linear's arguments make the tensors"),
        (stateful, "experts.0._extra_state: needs to be a tensor"),
    ]:
        with pytest.raises(ArgumentError) as caught:
            mb.save(wrong, folder)
        assert str(caught.value).startswith(said)
    assert not folder.exists()
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(ArgumentError, match="path: needs a folder of its own"):
        mb.save(whole(), tmp_path)


def test_a_part_of_another_room_and_a_subclass(tmp_path):
    class Named(mb.gates.Linear):
        pass

    moe = mb.Mixture(Named(4, 1), [mb.gates.MLP(4, 3, hidden=[5])])
    mb.save(moe, tmp_path)
    said = json.loads((tmp_path / "model.json").read_text())["spec"]
    assert said["experts"][0]["room"] == "gates"
    assert said["gate"] == {"kind": None, "class": "Named", "parameters": {"linear.weight": [1, 4], "linear.bias": [1]}}
    assert equal(mb.load(tmp_path, gate=Named(4, 1)), moe)


def stacked(make, count=3, **options):
    torch.manual_seed(3)
    return mb.Mixture(mb.gates.Linear(4, count), mb.Stack.of(make, count), **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_stack_comes_back_as_one_and_is_described_once(tmp_path, dtype):
    moe = stacked(lambda: mb.experts.FFN(4, 5, "swiglu"), 64, router=mb.routers.TopK(2)).to(dtype)
    mb.save(moe, tmp_path)
    ffn = {"kind": "ffn", "features": 4, "hidden": 5, "activation": "swiglu", "bias": True, "init": "torch"}
    said = json.loads((tmp_path / "model.json").read_text())["spec"]["experts"]
    assert said == {"kind": "stack", "count": 64, "expert": ffn}
    again = mb.load(tmp_path)
    assert isinstance(again.experts, mb.Stack)
    assert list(again.state_dict()) == list(moe.state_dict())
    assert {parameter.dtype for parameter in again.parameters()} == {dtype}
    assert all(parameter.is_leaf for parameter in again.parameters())
    assert equal(again, moe, X.to(dtype))
    assert list(load_file(tmp_path / "model.safetensors")) == sorted(tensor_holders(moe))


def test_a_stack_of_ones_own_is_given_whole_or_as_a_list(tmp_path):
    moe = stacked(Net).double()
    mb.save(moe, tmp_path)
    with pytest.raises(ArgumentError, match=r"^experts \(Stack of Net\): modules or functions") as caught:
        mb.load(tmp_path)
    assert caught.value.fix == f"mb.load({str(tmp_path)!r}, experts=mb.Stack([Net(…), …]))"
    stack = mb.Stack.of(Net, 3)
    again = mb.load(tmp_path, experts=stack)
    assert again.experts is stack
    assert equal(again, moe, X.double())
    listed = mb.load(tmp_path, experts=[Net() for _ in range(3)])
    torch.testing.assert_close(listed.eval()(X.double()), moe.eval()(X.double()))
    with pytest.raises(ArgumentError, match=r"^experts: the file has a tensor 2\.norm\."):
        mb.load(tmp_path, experts=mb.Stack.of(Net, 2))
    with pytest.raises(
        ArgumentError, match=r"^experts: its tensor 0\.inner\.weight has the shape \(3, 4\) in the file"
    ):
        mb.load(tmp_path, experts=mb.Stack.of(lambda: Net(2), 3))
    with pytest.raises(ArgumentError, match=r"^experts\.0: is supplied"):
        mb.load(tmp_path, experts={0: Net()})


def test_a_stack_that_is_known_needs_nothing(tmp_path):
    mb.save(stacked(lambda: mb.experts.Linear(4, 3)), tmp_path)
    with pytest.raises(ArgumentError, match=r"^experts: is supplied, and that place needs nothing"):
        mb.load(tmp_path, experts=mb.Stack.of(Net, 3))


def test_a_stack_inside_and_one_that_is_used_twice(tmp_path):
    shared = mb.Stack.of(lambda: mb.experts.Linear(4, 3), 2)
    inner = [mb.Mixture(mb.gates.Linear(4, 2), shared) for _ in range(2)]
    own = mb.Mixture(mb.gates.Linear(4, 2), mb.Stack.of(Net, 2))
    moe = mb.Mixture(mb.gates.Linear(4, 3), [*inner, own])
    mb.save(moe, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert not [name for name in stored if name.startswith("experts.1.experts")]
    again = mb.load(tmp_path, experts={"experts.2.experts": mb.Stack.of(Net, 2)})
    assert again.experts[0].experts is again.experts[1].experts
    assert equal(again, moe)


def test_a_sparse_layer_as_an_expert_and_inside_a_network(tmp_path):
    def block():
        return nn.Sequential(nn.LayerNorm(4), mb.layers.SparseFFN(4, 5, experts=3, shared=1), nn.Linear(4, 3))

    torch.manual_seed(0)
    moe = mb.Mixture(mb.gates.Linear(4, 2), [block(), mb.experts.Linear(4, 3)]).double()
    mb.save(moe, tmp_path / "inside")
    again = mb.load(tmp_path / "inside", experts={0: block()})
    assert equal(again, moe, X.double())
    layer = mb.layers.SparseFFN(4, 5, experts=3, k=1, router=mb.routers.Argmax(), execution=OneByOne())
    moe = mb.Mixture(mb.gates.Linear(4, 2), [layer, mb.layers.SparseFFN(4, 6, experts=3)])
    mb.save(moe, tmp_path / "expert")
    again = mb.load(tmp_path / "expert")
    torch.testing.assert_close(again(X), moe.eval()(X))
    # What runs the experts is a matter of speed.
    assert again.experts[0].execution == "auto"


class OneByOne(mb.Execution):
    def run(self, pool, routing, x):
        return mb.execution.Loop().run(pool, routing, x)


def test_tensors_that_lie_side_by_side_are_not_copied():
    """A stack's would be as large again."""
    whole = torch.zeros(3, 4)
    tensors = {"0": whole[0], "1": whole[1], "all": whole, "tail": whole[2, 2:]}
    apart = saving._without_overlap(tensors)
    same = [apart[name].data_ptr() == tensors[name].data_ptr() for name in tensors]
    assert same == [True, True, False, False]


def test_a_sequence_of_known_parts_is_known_and_one_of_others_is_supplied_whole(tmp_path):
    torch.manual_seed(0)
    layer = mb.layers.SparseFFN(5, 6, experts=2, k=1)
    model = nn.Sequential(mb.experts.Linear(4, 5), layer, layer, whole_of(5)).eval()
    mb.save(model, tmp_path)
    spec = read_header(tmp_path)["spec"]
    assert [part["kind"] for part in spec["parts"][:2]] == ["linear", "sparse_ffn"]
    assert spec["parts"][2] == {"same_as": "1"}
    again = mb.load(tmp_path)
    assert again[1] is again[2]
    assert equal(again, model)
    shared = nn.ReLU()
    expert = nn.Sequential(shared, nn.Linear(4, 3))
    moe = mb.Mixture(mb.gates.Linear(4, 2), [expert, nn.Sequential(shared, nn.Linear(4, 3))])
    assert [inner["class"] for inner in describe(moe)["experts"]] == ["Sequential", "Sequential"]


def whole_of(features):
    return mb.Mixture(mb.gates.Linear(features, 2), [mb.experts.Linear(features, 3) for _ in range(2)])


def test_parts_are_made_in_the_order_in_which_a_spec_names_them():
    spec = describe(whole())
    assert list(spec) == ["kind", "experts", "router", "gate", "combine", "execution"]
    gate_first = {name: spec[name] for name in ("kind", "gate", "experts", "router", "combine", "execution")}
    torch.manual_seed(0)
    gate = mb.gates.Linear(4, 2)
    torch.manual_seed(0)
    assert torch.equal(build(gate_first).gate.linear.weight, gate.linear.weight)
    torch.manual_seed(0)
    assert not torch.equal(build(spec).gate.linear.weight, gate.linear.weight)


def test_a_refused_argument_is_named_by_its_place():
    spec = describe(whole())
    spec["experts"][1]["hidden"] = [0]
    with pytest.raises(ArgumentError, match=r"^experts\.1\.hidden: needs whole numbers"):
        build(spec)
