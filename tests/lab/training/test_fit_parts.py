import copy

import torch

import moebius as mb
from moebius.lab.data.split import Split
from moebius.lab.training.fit_parts import fit_parts

ROWS = torch.randn(40, 3)
SPLIT = Split(ROWS, torch.zeros(40, dtype=torch.int64), torch.zeros(40, dtype=torch.int64))


def make(count=2):
    experts = [mb.experts.Table(3, 2, numeric="piecewise", bins=3) for _ in range(count)]
    return mb.Mixture(mb.gates.Table(3, count, numeric="piecewise", bins=4), experts)


def test_gate_and_experts_see_the_training_rows():
    moe = make()
    fit_parts(moe, SPLIT)
    for part in (moe.gate, *moe.experts):
        edges = part.network.encoder.numbers.edges
        assert torch.equal(edges[:, 0], ROWS.min(0).values)
        assert torch.equal(edges[:, -1], ROWS.max(0).values)


def test_experts_of_a_stack_see_them_too():
    moe = make()
    moe.experts = mb.Stack(list(moe.experts))
    fit_parts(moe, SPLIT)
    alone = mb.experts.Table(3, 2, numeric="piecewise", bins=3)
    alone.fit_rows(ROWS)
    for expert in moe.experts.unstacked():
        assert torch.equal(expert.network.encoder.numbers.edges, alone.network.encoder.numbers.edges)


def test_a_network_of_a_stage_keeps_what_it_has():
    network = mb.experts.Table(3, 2, numeric="piecewise", bins=3)
    before = copy.deepcopy(network.state_dict())
    moe = mb.Mixture(mb.gates.Linear(3, 1), [mb.experts.Adapter(network)])
    fit_parts(moe, SPLIT)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_any_part_with_the_method_is_called_with_rows_as_the_model_gets_them():
    class Mean(torch.nn.Module):
        def fit_rows(self, rows):
            self.mean = rows.mean()

    model = torch.nn.Sequential(Mean(), torch.nn.Linear(3, 2))
    fit_parts(model, Split(torch.full((4, 1, 2, 2), 255, dtype=torch.uint8), SPLIT.labels[:4], SPLIT.domains[:4]))
    assert model[0].mean == 1


def rows_and_targets():
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)) * 5 + 2
    return x, (x[:, 0] > 2).long()


def edges(part):
    return part.network.encoder.numbers.edges.clone()


def test_fit_gives_parts_the_training_rows_once():
    x, y = rows_and_targets()
    moe = make()
    assert not moe.gate.network.encoder.numbers.is_fitted
    mb.fit(moe, (x, y), validation=(x[:5] * 100, y[:5]), epochs=1)
    first = edges(moe.gate)
    assert torch.equal(first[:, -1], x.max(0).values)  # not the held-out rows
    assert torch.equal(edges(moe.experts[0])[:, 0], x.min(0).values)
    mb.fit(moe, (x + 50, y), epochs=1)  # goes on with weights that belong to these bins
    assert torch.equal(edges(moe.gate), first)


def test_a_loaded_model_keeps_its_bins(tmp_path):
    x, y = rows_and_targets()
    moe = make()
    mb.fit(moe, (x, y), epochs=1)
    mb.save(moe, tmp_path / "model")
    loaded = mb.load(tmp_path / "model")
    mb.fit(loaded, (x + 50, y), epochs=1)
    assert torch.equal(edges(loaded.gate), edges(moe.gate))


def test_parts_that_do_not_train_keep_their_bins():
    for trains, changed, same in (("gate", "gate", "experts"), ("experts", "experts", "gate")):
        moe = make()
        before = {"gate": edges(moe.gate), "experts": edges(moe.experts[0])}
        mb.fit(moe, rows_and_targets(), trains=trains, epochs=1)
        after = {"gate": edges(moe.gate), "experts": edges(moe.experts[0])}
        assert torch.equal(before[same], after[same])
        assert not torch.equal(before[changed], after[changed])


def test_a_resumed_fit_has_the_bins_of_the_first(tmp_path):
    x, y = rows_and_targets()
    torch.manual_seed(0)
    whole, first = make(), make()
    again = copy.deepcopy(first)
    whole.load_state_dict(first.state_dict())
    mb.fit(whole, (x, y), epochs=3)
    mb.fit(first, (x, y), epochs=3, folder=tmp_path, on_epoch=lambda moment: True)
    mb.fit(again, (x, y), epochs=3, folder=tmp_path)
    assert all(map(torch.equal, whole.state_dict().values(), again.state_dict().values()))


def test_a_part_without_the_attribute_is_called_once():
    class Count(torch.nn.Module):
        calls = 0

        def fit_rows(self, rows):
            self.calls += 1

        def forward(self, x):
            return x

    model = torch.nn.Sequential(Count(), mb.Mixture(mb.gates.Linear(3, 2), [torch.nn.Linear(3, 2) for _ in range(2)]))
    for _ in range(2):
        mb.fit(model, rows_and_targets(), epochs=1)
    assert (model[0].calls, model[0].is_fitted) == (1, True)
