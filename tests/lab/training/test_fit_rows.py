"""The forms of data that `mb.fit` takes, and what it says of wrong ones."""

import re

import datasets
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.lab.training.fit_rows import read_rows

X = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
FRAME = pd.DataFrame({"a": X[:, 0].numpy(), "b": X[:, 1].numpy(), "kind": Y.numpy()})


class Rows(torch.utils.data.Dataset):
    """A map-style data set of mappings."""

    def __len__(self):
        return len(X)

    def __getitem__(self, row):
        return {"x": X[row], "kind": Y[row]}


FORMS = {
    "tensors": ((X, Y), {}),
    "arrays": ((X.numpy(), Y.numpy()), {}),
    "arrays of int32": ((X.numpy(), Y.int().numpy()), {}),
    "truth values": ((X, Y.bool()), {}),
    "list of two batches": ([(X[:9], Y[:9]), (X[9:], Y[9:])], {}),
    "float64 arrays": ((X.double().numpy(), Y.numpy()), {}),
    "frames": ((FRAME[["a", "b"]], FRAME["kind"]), {}),
    "frame and a column": ((FRAME, "kind"), {}),
    "frame": (FRAME, {"target": "kind"}),
    "frame with chosen inputs": (FRAME.assign(name="text"), {"target": "kind", "inputs": ["a", "b"]}),
    "hub set": (datasets.Dataset.from_dict({"x": X.numpy(), "kind": Y.numpy()}), {"target": "kind", "inputs": "x"}),
    "mapping": ({"x": X, "kind": Y}, {"target": "kind", "inputs": "x"}),
    "torch data set": (TensorDataset(X, Y), {}),
    "torch data set of mappings": (Rows(), {"target": "kind", "inputs": "x"}),
    "loader": (DataLoader(TensorDataset(X, Y), batch_size=7), {}),
    "iterator of batches": (lambda: ((X[rows], Y[rows]) for rows in torch.arange(30).split(8)), {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_rows_and_trains(form):
    data, names = FORMS[form]
    data = data if form != "iterator of batches" else data()
    x, y = read_rows("data", data, names.get("inputs"), names.get("target"))
    torch.testing.assert_close(x, X, check_dtype=True)
    torch.testing.assert_close(y.long(), Y)
    data = FORMS[form][0] if form != "iterator of batches" else FORMS[form][0]()
    torch.manual_seed(0)
    moe = mb.Mixture(mb.gates.Linear(2, 2), [nn.Linear(2, 2), nn.Linear(2, 2)])
    assert mb.fit(moe, data, epochs=20, lr=0.1, **names).held_out.accuracy > 0.6


def test_inputs_of_several_parts_go_to_the_model_by_name():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mb.Mixture(mb.gates.Linear(2, 2), [nn.Linear(2, 2), nn.Linear(2, 2)])
            self.names = nn.Embedding(3, 2)

        def forward(self, ids, x):
            return self.body(x) + self.names(ids)

    data = {"x": X, "ids": torch.arange(30) % 3, "y": Y}
    named = mb.fit(Two(), data, target="y", epochs=2, validation=0.2)
    torch.manual_seed(0)
    in_turn = mb.fit(Two(), ((torch.arange(30) % 3, X), Y), epochs=2, validation=0.2)
    assert len(named.held_out.scores) == len(in_turn.held_out.scores) == 6


@pytest.mark.parametrize(
    ("data", "names", "message"),
    [
        ((X, Y[:20]), {}, r"as many targets as inputs.*\[30, 20\]"),
        ((X, Y.float() + 0.5), {}, 'task="regression"'),
        ((X, Y + 5), {}, "needs labels 0 … 1"),
        ((X * torch.nan, Y), {}, "finite inputs, and row 0"),
        ((X[:0], Y[:0]), {}, "at least one row"),
        (FRAME, {}, r"name of the target among the columns a, b, kind.*target='kind'"),
        (FRAME, {"target": "knd"}, "did you mean kind"),
        (FRAME.assign(a="text"), {"target": "kind"}, r"inputs\['a'\]: needs numbers.*cat.codes"),
        (DataLoader(TensorDataset(X[:0], Y[:0])), {}, "gives no batch"),
        (iter([]), {}, "read to its end"),
        ([X], {}, "pairs of inputs and targets"),
        (3, {}, "needs inputs and targets"),
    ],
    ids=lambda value: None,
)
def test_wrong_data_are_one_error_with_a_fix_that_destroys_nothing(data, names, message):
    moe = mb.Mixture(mb.gates.Linear(2, 2), [nn.Linear(2, 2), nn.Linear(2, 2)])
    with pytest.raises(ArgumentError) as caught:
        mb.fit(moe, data, epochs=1, **names)
    assert re.search(message, str(caught.value), re.DOTALL)
    assert ".long()" not in str(caught.value)


def test_a_function_of_rows_and_metrics_of_a_split():
    y = X[:, :1] * 2
    torch.manual_seed(0)
    moe = mb.Mixture(mb.gates.Linear(2, 2), [nn.Linear(2, 1), nn.Linear(2, 1)])
    largest = {"largest": lambda output, target: (output - target).abs().max()}
    test = (X, y)
    trained = mb.fit(moe, (X, y), task=nn.SmoothL1Loss(reduction="none"), metrics=largest, test=test, epochs=5, lr=0.1)
    with torch.no_grad():
        expected = (moe(X) - y).abs().max().item()
    assert trained.test.metric("largest") == pytest.approx(expected)
    assert len(trained.test.scores) == 30
    assert len(trained.held_out.scores) == 3
    frame = trained.frame()
    assert frame["test.metrics.largest"][trained.epoch - 1] == pytest.approx(expected, rel=1e-5)
    assert list(frame["epoch"]) == [1, 2, 3, 4, 5]
    with pytest.raises(ArgumentError, match=r"metrics\.all: must give one number"):
        mb.fit(moe, (X, y), task="regression", metrics={"all": lambda output, target: output}, epochs=1)


class Two(nn.Module):
    """Two heads behind a mixture."""

    def __init__(self):
        super().__init__()
        self.body = mb.Mixture(mb.gates.Linear(2, 2), [nn.Linear(2, 3), nn.Linear(2, 3)])

    def forward(self, x):
        y = self.body(x)
        return {"kind": y[:, :2], "price": y[:, 2:]}


class Positions(nn.Module):
    """Two positions for a row."""

    def __init__(self):
        super().__init__()
        self.body = mb.Mixture(mb.gates.Linear(2, 2), [nn.Linear(2, 4), nn.Linear(2, 4)])

    def forward(self, x):
        return self.body(x).unflatten(1, (2, 2))


LEARNED = {
    "classification": ("classification", lambda: moe(2), Y),
    "regression": ("regression", lambda: moe(2), X),
    "multi_label": ("multi_label", lambda: moe(2), (X > 0).float()),
    "tokens": ("tokens", Positions, (X > 0).long()),
    "multi_task": (
        {"kind": "multi_task", "tasks": {"kind": "classification", "price": "regression"}},
        Two,
        {"kind": Y, "price": X[:, 1]},
    ),
    "function": (nn.L1Loss(reduction="none"), lambda: moe(2), X),
}


def test_gates_of_a_layer_of_several_tasks_have_their_own_paths():
    gates = {"kind": nn.Linear(2, 3), "price": nn.Linear(2, 3)}
    towers = {"kind": nn.Linear(4, 2), "price": nn.Linear(4, 1)}
    layer = mb.layers.MultiGateMixture(gates, [nn.Linear(2, 4) for _ in range(3)], towers)
    task = LEARNED["multi_task"][0]
    trained = mb.fit(layer, (X, {"kind": Y, "price": X[:, 1]}), task=task, epochs=60, lr=0.05, validation=0)
    assert set(trained.train.gates) == {"gates.kind", "gates.price"}
    assert trained.train.metric("kind_accuracy") > 0.9
    assert trained.train.metric("price_r2") > 0.9


def moe(width):
    return mb.Mixture(mb.gates.Linear(2, 2), [nn.Linear(2, width), nn.Linear(2, width)])


@pytest.mark.parametrize("name", LEARNED)
def test_every_task_is_learned(name):
    task, make, targets = LEARNED[name]
    torch.manual_seed(0)
    trained = mb.fit(make(), (X, targets), task=task, epochs=60, lr=0.1, batch_size=10, validation=0)
    losses = [entry["train"]["loss"] for entry in trained.metrics]
    assert losses[-1] < 0.4 * losses[0]
    assert trained.train.score > trained.metrics[0]["train"][trained.train.score_name]


@pytest.mark.parametrize(
    ("task", "width", "targets"),
    [
        ({"kind": "regression", "loss": "quantile", "quantile": 0.9}, 2, X),
        ("multi_label", 2, (X > 0).float()),
        ({"kind": "classification", "weights": "balanced", "smoothing": 0.1}, 2, Y),
    ],
)
@pytest.mark.parametrize("router", [None, mb.routers.TopK(1)])
def test_losses_that_compare_experts_the_oracle_and_the_one_expert_cut_work_for_a_task(task, width, targets, router):
    torch.manual_seed(0)
    moe = mb.Mixture(mb.gates.Linear(2, 2), [nn.Linear(2, width), nn.Linear(2, width)], router)
    losses = [{"kind": "best_expert", "weight": 0.1}]
    trained = mb.fit(moe, (X, targets), task=task, epochs=2, losses=losses, validation=0.3)
    scores = torch.stack([expert.scores.double() for expert in trained.alone])
    assert trained.oracle == pytest.approx(scores.amax(0).mean().item())
    assert trained.one_expert is not None
    assert trained.one_expert.score_name == trained.held_out.score_name
    assert trained.metrics[-1]["validation"][trained.held_out.score_name] is not None
