"""`mb.watch` on whole language models: the same bits, the right routings, and nothing left behind."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import moebius as mb

# Families whose `output_router_logits` gives the logits of every block.
WITH_LOGITS = ["mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "gpt_oss", "granite_moe", "jamba"]
FAMILIES = [*WITH_LOGITS, "deepseek_v2", "deepseek_v3", "jetmoe", "llama4"]
EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)


def run(model: nn.Module, batch: dict[str, torch.Tensor], **options):
    model.zero_grad()
    logits = model(**batch, **options).logits
    logits.square().mean().backward()
    return logits.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


def assert_same_bits(first, second) -> None:
    assert torch.equal(first[0], second[0])
    assert first[1].keys() == second[1].keys()
    for name, gradient in first[1].items():
        assert (gradient is None) == (second[1][name] is None), name
        assert gradient is None or torch.equal(gradient, second[1][name]), name


@EVERY_FAMILY
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("outputs", [False, True])
def test_outputs_and_gradients_are_equal_to_the_bit(build, batch, hooks, family, training, outputs):
    if outputs and family in ("jetmoe", "llama4"):
        pytest.skip("the outputs of all experts are refused")
    model = build(family).train(training)
    before = hooks(model)
    torch.manual_seed(1)
    plain = run(model, batch)
    torch.manual_seed(1)
    with mb.watch(model, outputs=outputs) as log:
        watched = run(model, batch)
    assert_same_bits(plain, watched)
    assert log
    assert hooks(model) == before
    assert_same_bits(plain, (torch.manual_seed(1), run(model, batch))[1])


@pytest.mark.parametrize("family", WITH_LOGITS)
def test_scores_and_loads_are_those_of_output_router_logits(build, batch, family):
    model = build(family)
    with torch.no_grad(), mb.watch(model) as log:
        theirs = model(**batch, output_router_logits=True).router_logits
    routings = [routing for routings in log.values() for routing in routings]
    assert len(routings) == len(theirs) >= 1
    for routing, logits in zip(routings, theirs, strict=True):
        assert torch.equal(routing.scores, logits)
        torch.testing.assert_close(routing.probs, logits.float().softmax(-1))
        chosen = logits.topk(2, -1).indices
        loads = torch.bincount(chosen.flatten(), minlength=4)
        assert torch.equal(loads, (routing.weights != 0).sum(0))
        assert torch.equal(loads, torch.bincount(routing.selection.expert_A[routing.selection.kept_A], minlength=4))


@EVERY_FAMILY
def test_a_routing_is_consistent(build, batch, family):
    model = build(family)
    with torch.no_grad(), mb.watch(model) as log:
        model(**batch)
    assert all(isinstance(model.get_submodule(path), nn.Module) for path in log)
    for routing in (routing for routings in log.values() for routing in routings):
        assert routing.scores.shape == routing.probs.shape == routing.weights.shape == (21, 4)
        again = mb.Routing.from_selection(routing.scores, routing.probs, routing.selection)
        torch.testing.assert_close(again.weights, routing.weights.float())
        assert torch.equal(routing.log_weights, routing.weights.log())
        assert routing.distribution == (family not in ("deepseek_v3", "llama4"))
        if routing.distribution:
            torch.testing.assert_close(routing.probs.sum(-1), torch.ones(21))


def test_without_gradients_and_with_them(build, batch):
    model = build("mixtral")
    with torch.no_grad(), mb.watch(model) as log:
        model(**batch)
    assert not any(routing.weights.requires_grad for (routing,) in log.values())
    with mb.watch(model) as log:
        model(**batch)
    losses = [mb.losses.importance(routing) for (routing,) in log.values()]
    sum(losses).backward()
    assert all(layer.mlp.gate.weight.grad.abs().sum() > 0 for layer in model.model.layers)


def test_in_bfloat16(build, batch):
    model = build("mixtral").bfloat16()
    plain = run(model, batch)
    with mb.watch(model) as log:
        watched = run(model, batch)
    assert_same_bits(plain, watched)
    for (routing,) in log.values():
        assert routing.scores.dtype == torch.bfloat16
        assert routing.probs.dtype == torch.float32
        torch.testing.assert_close(routing.weights.float().sum(-1), torch.ones(21), rtol=1e-2, atol=0)


def test_after_an_exception_no_hook_is_left(build, batch, hooks):
    model = build("mixtral")
    before = hooks(model)
    with pytest.raises(ZeroDivisionError), mb.watch(model):
        model(**batch).logits.fill_(1 / 0)
    assert hooks(model) == before


def test_an_exception_inside_the_model_is_not_hidden_and_leaves_no_mask(build, batch, hooks):
    model = build("mixtral")
    before = hooks(model)
    with pytest.raises(IndexError), mb.watch(model):
        model(input_ids=torch.full((3, 7), 99), attention_mask=batch["attention_mask"])
    assert hooks(model) == before
    with mb.watch(model) as log:
        with pytest.raises(IndexError):
            model(input_ids=torch.full((3, 7), 99), attention_mask=batch["attention_mask"])
        model.model.layers[0].mlp(torch.zeros(3, 7, 16))
    assert "mask" not in log["model.layers.0.mlp"][0].aux


def test_padding_is_marked(build, batch):
    model = build("mixtral")
    with mb.watch(model) as log:
        model(**batch)
        model(batch["input_ids"], batch["attention_mask"])
        model(batch["input_ids"])
        with mb.context(mask=batch["attention_mask"].bool()):
            model(batch["input_ids"])
    first, by_position, without, by_context = log["model.layers.1.mlp"]
    mask = batch["attention_mask"].flatten().bool()
    for routing in (first, by_position, by_context):
        assert torch.equal(routing.aux["mask"], mask)
    assert "mask" not in without.aux
    # Padding is routed as other rows are.
    assert (first.weights[~mask] != 0).sum() == 2 * (~mask).sum()


@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3"])
def test_generation_gives_a_routing_for_each_token(build, batch, family):
    model = build(family)
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    plain = model.generate(**batch, **options)
    with mb.watch(model) as log:
        watched = model.generate(**batch, **options)
    assert torch.equal(plain, watched)
    routings = list(log.values())[-1]
    assert [len(routing.weights) for routing in routings] == [21, 3, 3, 3]
    assert torch.equal(routings[0].aux["mask"], batch["attention_mask"].flatten().bool())
    assert all(routing.aux["mask"].all() for routing in routings[1:])
    with torch.no_grad(), mb.watch(model) as whole:
        ones = torch.ones(3, 3, dtype=torch.long)
        model(input_ids=watched[:, :-1], attention_mask=torch.cat([batch["attention_mask"], ones], 1))
    real = whole[list(log)[-1]][0].weights.view(3, 10, 4)
    for step, routing in enumerate(routings[1:]):
        torch.testing.assert_close(routing.weights, real[:, 7 + step], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_activation_checkpointing(build, batch, reentrant, after):
    """Replays add no routing, whether backward runs inside of the block or after it; routings have no gradient."""
    model = build("mixtral").train()
    plain = run(model, batch)
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    embedded = {"inputs_embeds": model.model.embed_tokens(batch["input_ids"]), **batch}
    del embedded["input_ids"]
    model.zero_grad()
    with mb.watch(model) as log:
        logits = model(**embedded, use_cache=False).logits
        if not after:
            logits.square().mean().backward()
    if after:
        logits.square().mean().backward()
    assert [len(routings) for routings in log.values()] == [1, 1]
    assert_same_bits(plain, (logits, {name: p.grad for name, p in model.named_parameters()}))
    loss = mb.losses.importance(log["model.layers.0.mlp"][0])
    with pytest.raises(mb.MoebiusError, match=r"an activation checkpoint repeats its forward\n  fix: model.activation"):
        loss.backward()


def test_nested_record_and_two_watches(build, batch):
    model = build("mixtral")
    inner = mb.layers.SparseFFN(16, 8, experts=4, k=2)
    model.model.layers[1].mlp = inner
    with mb.record(model) as recorded, mb.watch(model) as outer, mb.watch(model, outputs=True) as log:
        model(**batch)
    ours = [path for path in outer if path.startswith("model.layers.1.mlp")]
    assert set(outer) == set(log) == {"model.layers.0.mlp", *ours}
    assert set(recorded) == set(ours) != set()
    assert torch.equal(outer["model.layers.0.mlp"][0].weights, log["model.layers.0.mlp"][0].weights)
    assert outer["model.layers.0.mlp"][0].outputs is None
    assert log["model.layers.0.mlp"][0].outputs.shape == (21, 4, 16)
    assert log[ours[0]][0].outputs is not None
    assert outer[ours[0]][0] is recorded[ours[0]][0]


def test_a_model_of_ours_alone():
    moe = mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 3), nn.Linear(4, 3)])
    with mb.watch(moe) as log, mb.record(moe) as recorded:
        moe(torch.zeros(5, 4))
    assert log[""][0] is recorded[""][0]


def test_a_compiled_model_is_refused_unless_it_runs_eagerly(build, batch):
    model = build("mixtral")
    for compiled in (torch.compile(model, backend="eager"), nn.Sequential(build("mixtral"))):
        if isinstance(compiled, nn.Sequential):
            compiled[0].compile(backend="eager")
        with pytest.raises(mb.MoebiusError, match=r"is compiled.*\n  fix: with torch.compiler.set_stance"):
            mb.watch(compiled)
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad(), torch.compiler.set_stance("force_eager"), mb.watch(compiled) as log:
        compiled(**batch)
    assert list(log) == ["_orig_mod.model.layers.0.mlp", "_orig_mod.model.layers.1.mlp"]


COMPILED = """
import torch, moebius as mb
from torch import nn

class Experts(nn.Module):
    def forward(self, hidden_states, top_k_index, top_k_weights):
        return hidden_states * (top_k_weights * (1 + top_k_index)).sum(-1, keepdim=True)

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(4, 3), Experts()

    def forward(self, x):
        best = self.gate(x).softmax(-1).topk(2)
        return self.experts(x, best.indices, best.values)

block, x = Block(), torch.randn(5, 4)
expected = block(x)
before = torch.compile(lambda rows: block(rows), backend="eager")
before(x)
try:
    with mb.watch(block):
        before(x)
except mb.MoebiusError as error:
    assert "nothing was recorded: none of the 1 watched" in str(error)
else:
    raise AssertionError("an empty log is no error")
torch._dynamo.reset()
now = torch.compile(lambda rows: block(rows), backend="eager")
with mb.watch(block) as log:
    torch.testing.assert_close(now(x), expected)
assert len(log[""]) == 1
now(x)
assert len(log[""]) == 1
"""


def test_functions_compiled_around_a_model():
    """What was compiled before has no hooks, and the empty log is an error; what is compiled now is watched.

    In a process of its own: a compiler would follow the type checks of these tests, too.
    """
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_a_model_without_mixtures_is_refused_with_a_description_to_paste():
    with pytest.raises(mb.MoebiusError, match=r"no mixture of experts is recognised in Linear\n  fix: mb\.watch"):
        mb.watch(nn.Linear(2, 2))
    block = nn.ModuleDict({"wg": nn.Linear(4, 3), "experts": nn.ModuleList(nn.Linear(4, 4) for _ in range(3))})
    model = nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict({"moe": block})])})
    with pytest.raises(mb.MoebiusError) as caught:
        mb.watch(model)
    description = 'mb.integrations.Described("wg", mb.routers.TopK(2), experts="experts")'
    fix = f'mb.watch(model, describe={{"layers.*.moe": {description}}})'
    assert caught.value.fix == fix
    eval(fix, {"mb": mb, "model": model})


def test_a_block_whose_parts_are_replaced_is_noticed(build, batch):
    model = build("mixtral")
    model.model.layers[1].mlp.forward = lambda x: x
    message = r"'model.layers.1.mlp' ran, but its router or its experts were not"
    with pytest.raises(mb.MoebiusError, match=message), mb.watch(model):
        model(**batch)
    with pytest.raises(mb.MoebiusError, match="none of the 2 watched blocks was called"), mb.watch(model):
        pass


def test_sharded_experts_are_refused(build):
    model = build("mixtral")
    model.model.layers[0].mlp.experts._is_expert_parallel = True
    with pytest.raises(mb.MoebiusError, match="the experts of MixtralSparseMoeBlock are sharded"), mb.watch(model):
        pass
