"""The figures of the explorer are those of plain calls of the model."""

import numpy as np
import torch
from torch.nn import functional as F

import moebius as mb
from moebius.lab.explorer import explore_model
from moebius.lab.explorer.row_view import view_row


def test_the_table_equals_plain_calls(pictures, picture_rows):
    model, (x, y) = pictures.source.subject.model, picture_rows
    with torch.no_grad(), mb.record(model) as log:
        log_probabilities = model(x / 255)
    routing, frame = log[""][-1], pictures.table.frame
    losses = F.nll_loss(log_probabilities, y, reduction="none")
    gate = pictures.table.gates["gate"]
    np.testing.assert_allclose(frame["loss"], losses, atol=1e-5)
    np.testing.assert_allclose(frame["confidence"], log_probabilities.exp().amax(1), atol=1e-5)
    assert frame["right"].tolist() == (log_probabilities.argmax(1) == y).float().tolist()
    np.testing.assert_allclose(gate.weights, routing.weights, atol=1e-5)
    assert gate.top.tolist() == routing.weights.argmax(1).tolist()
    with torch.no_grad():
        alone = torch.stack([F.cross_entropy(expert(x / 255), y, reduction="none") for expert in model.experts], 1)
    np.testing.assert_allclose(gate.losses, alone, atol=1e-4)
    np.testing.assert_allclose(frame["regret"], losses - alone.amin(1), atol=1e-4)


def test_a_panel_equals_plain_calls(pictures, picture_rows):
    model, (x, _) = pictures.source.subject.model, picture_rows
    view = view_row(pictures.source.explain([5, 9], keeps_outputs=True), 1)
    with torch.no_grad():
        experts = [expert(x[9:10] / 255).softmax(1)[0].tolist() for expert in model.experts]
        together = model(x[9:10] / 255).exp()[0].tolist()
    assert view.name == "row:9"
    assert view.classes == ("ant", "bee", "<cow>")
    np.testing.assert_allclose(view.shares, together, atol=1e-5)
    (panel,) = view.gates
    for line in panel.experts:
        np.testing.assert_allclose(line.shares, experts[line.view.expert], atol=1e-5)
    assert panel.combination is not None
    assert panel.combination.adds == "probabilities"


def test_a_counterfactual_says_what_changes(pictures, picture_rows):
    model, (x, y) = pictures.source.subject.model, picture_rows
    with torch.no_grad():
        says = model(x / 255).argmax(1)
        alone = torch.stack([expert(x / 255).argmax(1) for expert in model.experts], 1)
    row = next(row for row in range(len(y)) if says[row] != y[row] and (alone[row] == y[row]).any())
    expert = int((alone[row] == y[row]).nonzero()[0])
    (panel,) = view_row(pictures.source.explain([row], keeps_outputs=True)).gates
    line = next(line for line in panel.experts if line.view.expert == expert)
    name = pictures.source.subject.targets[0].classes[int(y[row])]
    assert f"the model would say {name} (" in line.change
    assert ": right, and not wrong; the loss would be" in line.change
    assert line.change.endswith("less.")
    assert line.is_better


def test_outputs_that_are_added_are_told_from_probabilities():
    torch.manual_seed(0)
    moe = mb.Mixture(mb.gates.Linear(4, 2), [mb.experts.Linear(4, 3), mb.experts.Linear(4, 3)])
    explorer = explore_model(moe, (9 * torch.randn(5, 4), torch.randint(3, (5,))))
    (panel,) = view_row(explorer.source.explain([0], keeps_outputs=True)).gates
    assert panel.combination is not None
    assert (panel.combination.combine, panel.combination.adds) == ("WeightedSum", "outputs")


def test_a_nested_mixture_has_a_panel_for_each_gate_that_the_row_reached(nested):
    top = nested.table.gates["gate"].top
    inside, outside = int(np.flatnonzero(top == 0)[0]), int(np.flatnonzero(top != 0)[0])
    view = view_row(nested.source.explain([inside], keeps_outputs=True))
    assert [panel.view.gate for panel in view.gates] == ["gate", "experts.0.gate"]
    assert view.gates[1].combination is None
    view = view_row(nested.source.explain([outside], keeps_outputs=True))
    assert [panel.view.gate for panel in view.gates] == ["gate"]
    assert view.skipped == ("experts.0.gate",)
    inner = nested.table.gates["experts.0.gate"]
    assert ((inner.top == -1) == (top != 0)).all()


def test_of_many_rows_a_sample_is_computed(picture_rows, pictures):
    explorer = explore_model(pictures.source.subject.model, picture_rows, rows=40)
    rows = explorer.table.frame["row"]
    assert len(rows) == 40
    assert rows.is_monotonic_increasing
    assert rows.is_unique
    assert "row:149" in explorer.row(149)


def test_the_result_of_fit_is_explored(picture_rows):
    x, y = picture_rows
    fitted = mb.fit(
        mb.Mixture(mb.gates.Linear(64, 2), [mb.experts.Linear(64, 3), mb.experts.Linear(64, 3)]), (x, y), epochs=1
    )
    explorer = explore_model(fitted, (x, y), classes=["a", "b", "c"])
    with torch.no_grad():
        accuracy = (fitted.model.eval()(x / 255).argmax(1) == y).float().mean()
    assert abs(explorer.table.frame["right"].mean() - float(accuracy)) < 1e-6
    assert explorer.table.groups.names == ("a", "b", "c")
