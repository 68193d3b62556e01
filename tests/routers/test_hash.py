import torch
from torch import nn

import moebius as mb
from moebius.kit.hashing import mix_bits
from moebius.routers.hash import Hash


def experts_of(router, keys, experts=8):
    return router(torch.zeros(len(keys), experts), keys).selection.expert_A


def test_worked():
    # Keys 0 to 2 mixed are 0, 6238072747940578789 and −2606959012126976886, and 0 is what seed 0 mixes to. Without
    # its sign bit the last is 2⁶³ − 2606959012126976886 = 6616413024727798922.
    keys = torch.tensor([0, 1, 2])
    assert mix_bits(keys).tolist() == [0, 6238072747940578789, -2606959012126976886]
    assert experts_of(Hash(), keys, 10).tolist() == [0, 9, 2]
    routing = Hash()(torch.zeros(3, 2), keys)
    assert routing.weights.tolist() == [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    assert routing.probs.tolist() == [[0.5, 0.5]] * 3


def test_neighbouring_keys_load_all_experts_alike():
    for keys in (torch.arange(40_000), torch.arange(40_000) * 64 - 10**12):
        loads = torch.bincount(experts_of(Hash(), keys), minlength=8)
        # Five standard deviations of a count with p = 1/8.
        assert (loads - 5000).abs().max() < 5 * (40_000 / 8 * 7 / 8) ** 0.5


def test_a_row_has_the_same_expert_in_any_batch():
    keys = torch.randint(-(2**62), 2**62, (50,), generator=torch.Generator().manual_seed(0))
    expected, order = experts_of(Hash(3), keys), torch.randperm(50, generator=torch.Generator().manual_seed(1))
    assert torch.equal(experts_of(Hash(3), keys[order]), expected[order])
    assert torch.equal(experts_of(Hash(3), keys[7:8]), expected[7:8])
    assert torch.equal(experts_of(Hash(3).train(), keys), experts_of(Hash(3).eval(), keys))


def test_another_seed_is_another_assignment():
    keys = torch.arange(8000)
    first, second = experts_of(Hash(0), keys), experts_of(Hash(1), keys)
    # Independent assignments agree for one key in eight; and no expert goes to one other as a whole.
    assert ((first == second).float().mean() - 1 / 8).abs() < 0.02
    pair_counts = torch.bincount(first * 8 + second, minlength=64)
    assert 60 < pair_counts.min() <= pair_counts.max() < 190


def test_the_gate_has_no_say_where_there_are_keys():
    keys = torch.arange(30)
    assert torch.equal(Hash()(torch.randn(30, 8), keys).weights, Hash()(torch.randn(30, 8), keys).weights)


def test_without_keys_it_goes_by_the_scores():
    scores = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    expert_A = Hash()(scores).selection.expert_A
    assert torch.equal(Hash()(scores[100:110]).selection.expert_A, expert_A[100:110])
    assert torch.bincount(expert_A, minlength=4).min() > 60


def test_in_a_mixture_it_goes_by_content_or_by_the_key_given():
    torch.manual_seed(0)
    moe = mb.Mixture(mb.gates.Linear(3, 4), [nn.Linear(3, 2) for _ in range(4)], Hash())
    x = torch.randn(6, 3)[[0, 1, 2, 3, 4, 0]]
    with mb.record(moe) as log:
        moe(x)
        moe(x, {"key": torch.tensor([9, 1, 9, 9, 9, 2])})
    by_content, by_key = (routing.selection.expert_A for routing in log[""])
    assert by_content[0] == by_content[5]
    assert len(by_content.unique()) > 1
    assert torch.equal(by_key, experts_of(Hash(), torch.tensor([9, 1, 9, 9, 9, 2]), 4))


def test_counts_its_assignments():
    routing = Hash()(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]))
    assert routing.aux["assigned"].tolist() == [3.0, 1.0]
