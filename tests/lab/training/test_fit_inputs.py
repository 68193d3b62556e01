"""`mb.fit` of a bare mixture whose gate and experts read different inputs of a row: meta data and images, columns."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError

RANDOM = torch.Generator().manual_seed(0)
META, IMAGE = torch.randn(200, 1, generator=RANDOM), torch.randn(200, 2, 3, generator=RANDOM)
# The sign of another pixel counts, by the meta data: no expert alone can know it.
Y = (torch.where(META[:, 0] > 0, IMAGE[:, 0, 0], -IMAGE[:, 1, 2]) > 0).long()


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(1, 2)

    def forward(self, meta):
        return self.net(meta)


class Expert(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))

    def forward(self, image):
        return self.net(image)


def by_parameter(**options):
    torch.manual_seed(0)
    return mb.Mixture(Gate(), [Expert(), Expert()], combine=mb.LogMixture(), **options)


def by_part():
    torch.manual_seed(0)
    gate = nn.Linear(1, 2)  # in the order in which `by_parameter` draws them
    experts = [nn.Sequential(nn.Flatten(), nn.Linear(6, 2)) for _ in range(2)]
    return mb.Mixture(gate, experts, combine=mb.LogMixture())


COLUMNS = {f"p{place}": column for place, column in enumerate(IMAGE.flatten(1).unbind(1))}
FRAME = pd.DataFrame({"age": META[:, 0].numpy(), **{name: value.numpy() for name, value in COLUMNS.items()}, "y": Y})
SHARES = {"gate": "meta", "experts": "image"}
FORMS = {
    "mapping by parameters": (by_parameter, {"image": IMAGE, "meta": META, "y": Y}, {"target": "y"}),
    "mapping by parts": (by_part, {"image": IMAGE, "meta": META, "y": Y}, {"target": "y", "inputs": SHARES}),
    "pair of a mapping": (by_parameter, ({"image": IMAGE, "meta": META}, Y), {}),
    "pair by parts": (by_part, ({"image": IMAGE.numpy(), "meta": META.numpy()}, Y.numpy()), {"inputs": SHARES}),
    "lists of one": (
        by_part,
        {"i": IMAGE, "m": META, "y": Y},
        {"target": "y", "inputs": {"gate": ["m"], "experts": ["i"]}},
    ),
    "batches": (
        by_part,
        [({"image": IMAGE[rows], "meta": META[rows]}, Y[rows]) for rows in torch.arange(200).split(64)],
        {"inputs": SHARES},
    ),
    "frame": (by_part, FRAME, {"target": "y", "inputs": {"gate": ["age"], "experts": [*COLUMNS]}}),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_trains_evaluates_and_compares_the_experts(form):
    make, data, names = FORMS[form]
    fitted = mb.fit(make(), data, epochs=25, lr=0.05, batch_size=20, **names)
    assert fitted.train.accuracy > 0.85
    assert fitted.oracle > fitted.held_out.accuracy - 0.15
    assert [len(expert.scores) for expert in fitted.alone] == [20, 20]
    assert max(expert.accuracy for expert in fitted.alone) < fitted.train.accuracy
    assert fitted.one_expert.active_experts() == 1.0


def test_all_forms_train_the_same_weights():
    weights = []
    for make, data, names in FORMS.values():
        model = make()
        mb.fit(model, data, epochs=2, **names)
        weights.append(torch.cat([value.flatten() for value in model.state_dict().values()]))
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0])


def test_the_model_is_called_with_the_same_mapping_afterwards():
    model = by_parameter()
    fitted = mb.fit(model, {"image": IMAGE, "meta": META, "y": Y}, target="y", epochs=2, validation=({
        "image": IMAGE, "meta": META}, Y))  # fmt: skip
    with torch.no_grad():
        assert torch.equal(model({"image": IMAGE, "meta": META}).argmax(1), fitted.held_out.predictions)


@pytest.mark.parametrize("make", [by_parameter, lambda: by_parameter(router=mb.routers.TopK(1))])
def test_frozen_experts_are_computed_once_and_train_the_same_gate(make):
    trained = []
    for remember in (True, False):
        model = make().double()
        data = {"image": IMAGE.double(), "meta": META.double(), "y": Y}
        fitted = mb.fit(model, data, target="y", trains="gate", epochs=3, remember=remember)
        assert fitted.remembered == remember
        trained.append(model.gate.net.weight.detach())
    torch.testing.assert_close(*trained, rtol=0, atol=1e-10)


def test_bins_of_numbers_are_those_of_the_rows_that_the_part_gets():
    gate, experts = mb.gates.Table(1, 2, numeric="piecewise", bins=3), [
        mb.experts.Table(6, 2, numeric="piecewise", bins=4) for _ in range(2)
    ]  # fmt: skip
    data = ({"gate": META, "experts": IMAGE.flatten(1)}, Y)
    mb.fit(mb.Mixture(gate, experts), data, epochs=1, validation=0.0)
    assert gate.network.encoder.numbers.edges[0, [0, -1]].tolist() == [META.min().item(), META.max().item()]
    for expert in experts:
        assert torch.equal(expert.network.encoder.numbers.edges[:, -1], IMAGE.flatten(1).max(0).values)


class Ready(mb.Mixture):
    """A mixture that takes several inputs by itself."""

    def forward(self, image, meta):
        return super().forward({"image": image, "meta": meta})


def test_a_subclass_that_takes_inputs_by_itself_trains_without_figures_of_single_experts():
    torch.manual_seed(0)
    model = Ready(Gate(), [Expert(), Expert()], combine=mb.LogMixture())
    fitted = mb.fit(model, ((IMAGE, META), Y), trains="gate", epochs=2)
    assert (fitted.alone, fitted.oracle, fitted.remembered) == ((), None, False)


@pytest.mark.parametrize(
    ("data", "names", "message"),
    [
        ((IMAGE, Y), {"inputs": "image"}, "inputs: names columns, and the inputs have no names"),
        (({"image": IMAGE, "meta": META}, Y), {"inputs": {"gate": "met", "experts": "image"}}, "no column is called"),
        (({"image": IMAGE, "more": META}, Y), {}, "one by the name of a parameter of the gate's forward"),
        (({"image": IMAGE, "meta": META[:50]}, Y), {}, "as many targets as inputs"),
    ],
)  # fmt: skip
def test_wrong_inputs_are_one_error_with_a_fix(data, names, message):
    with pytest.raises(ArgumentError, match=message) as error:
        mb.fit(by_parameter(), data, epochs=1, **names)
    assert error.value.fix


def test_arrays_of_the_user_stay_as_they_are():
    meta = META.numpy().copy()
    mb.fit(by_part(), ({"gate": meta, "experts": IMAGE.numpy()}, Y.numpy()), epochs=1)
    assert np.array_equal(meta, META.numpy())
