"""Switch blocks: one expert a row, rows beyond the capacity dropped, counted for each sequence."""

import pytest
import torch

import moebius as mb

EXPERTS, DIM = 4, 8
X = torch.randn(2, 9, DIM, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def block(transformers):
    def make_block(capacity, dropout=0.0):
        from transformers.models.switch_transformers import modeling_switch_transformers as modeling

        torch.manual_seed(0)
        sizes = {"d_model": DIM, "d_ff": 12, "num_experts": EXPERTS, "expert_capacity": capacity}
        config = transformers.SwitchTransformersConfig(**sizes, dropout_rate=dropout)
        made = modeling.SwitchTransformersSparseMLP(config)
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        return made.eval()

    return make_block


@pytest.mark.parametrize("capacity", [1, 2, 100])
def test_kept_rows_are_those_that_their_sequence_has_room_for(block, capacity):
    module = block(capacity)
    with torch.no_grad(), mb.watch(module, outputs=True) as log:
        y = module(X)
    (routing,) = log[""]
    logits = module.router.classifier(X)
    assert torch.equal(routing.scores, logits.flatten(0, 1))
    kept, assigned = [], [0] * EXPERTS
    for sequence in logits:
        counts = [0] * EXPERTS
        for scores in sequence:
            expert = int(scores.argmax())
            counts[expert] += 1
            assigned[expert] += 1
            kept.append(counts[expert] <= capacity)
    assert routing.selection.kept_A.tolist() == kept
    assert routing.aux["assigned"].tolist() == assigned
    assert int(routing.aux["dropped"]) == kept.count(False)
    assert (kept.count(False) > 0) == (capacity < 100)
    assert ((routing.weights != 0).sum(1) == torch.tensor(kept)).all()
    rebuilt = torch.einsum("te,ted->td", routing.weights, routing.outputs)
    torch.testing.assert_close(rebuilt.view_as(y), y, rtol=1e-5, atol=1e-5)


def test_dropout_of_experts_is_the_same_with_their_outputs_watched(block):
    module = block(100, dropout=0.5).train()
    torch.manual_seed(0)
    plain = module(X.clone())  # in training the router changes its input
    torch.manual_seed(0)
    with mb.watch(module, outputs=True):
        assert torch.equal(module(X.clone()), plain)


def test_an_encoder_and_a_decoder_have_masks_of_their_own(transformers):
    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "d_model": DIM, "d_ff": 12, "d_kv": 4, "num_heads": 2, "num_layers": 2}
    sparse = {"num_decoder_layers": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1}
    config = transformers.SwitchTransformersConfig(**sizes, **sparse, num_experts=EXPERTS, decoder_start_token_id=0)
    model = transformers.SwitchTransformersForConditionalGeneration(config).eval()
    mask = torch.arange(7) < torch.tensor([[4], [7]])
    inputs = {"input_ids": torch.ones(2, 7, dtype=torch.long), "decoder_input_ids": torch.ones(2, 5, dtype=torch.long)}
    with torch.no_grad(), mb.watch(model) as log:
        model(**inputs, attention_mask=mask.long())
        model(**inputs, attention_mask=mask.long(), decoder_attention_mask=mask[:, :5].long())
    encoder = [routings for path, routings in log.items() if path.startswith("encoder")]
    decoder = [routings for path, routings in log.items() if path.startswith("decoder")]
    assert encoder
    assert decoder
    for first, second in encoder:
        assert torch.equal(first.aux["mask"], mask.flatten())
        assert torch.equal(second.aux["mask"], mask.flatten())
    for first, second in decoder:
        assert "mask" not in first.aux
        assert torch.equal(second.aux["mask"], mask[:, :5].flatten())
