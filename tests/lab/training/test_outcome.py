"""What a session prints of a finished training: a few lines, and a small table."""

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.lab.training.engine import Member
from moebius.lab.training.evaluation import Evaluation
from moebius.lab.training.fit import fit
from moebius.lab.training.outcome import Event
from moebius.lab.training.settings import Settings


@pytest.fixture
def trained(small_data, settings, build, tmp_path, alone):
    data = small_data(validation_rows=40)
    return alone(build(data), data, settings(), 0, tmp_path).train()


def test_a_finished_training_is_a_few_lines(trained):
    lines = repr(trained).splitlines()
    assert len(lines) <= 8
    assert max(map(len, lines)) <= 120
    assert lines[0] == f"Trained Mixture, epoch {trained.epoch} of 2"
    accuracies = (trained.train.accuracy, trained.held_out.accuracy, trained.test.accuracy)
    assert lines[1] == "  accuracy: train {:.3f}, held out {:.3f}, test {:.3f}".format(*accuracies)
    best = max(trained.alone, key=lambda expert: expert.accuracy)
    accuracy = (best.predictions == trained.test.labels).double().mean().item()
    assert lines[2] == f"  best single expert: {accuracy:.3f} ({best.paths[0]})"
    assert lines[3] == f"  oracle: {trained.oracle:.3f}"
    assert lines[4] == "  experts used per row: 2.00 of 2"


def test_held_out_rows_are_no_test_rows():
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    moe = mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 2) for _ in range(2)], mb.routers.Argmax())
    result = fit(nn.Sequential(moe), (x, (x[:, 0] > 0).long()), epochs=1)
    lines = repr(result).splitlines()
    assert lines[0] == "Trained Sequential, epoch 1 of 1"
    assert lines[1] == f"  accuracy: train {result.train.accuracy:.3f}, held out {result.held_out.accuracy:.3f}"
    assert (result.final_name, result.final) == ("held_out", result.held_out)
    assert {*result.metrics[0]} == {"epoch", "train", "validation", "gates"}
    with pytest.raises(AttributeError, match=r"no test rows were given: mb\.fit\(.*\); fitted\.held_out"):
        _ = result.test
    with pytest.raises(AttributeError, match=r"the held-out rows are fitted\.held_out"):
        _ = result.validation
    alone = fit(nn.Sequential(moe), (x, (x[:, 0] > 0).long()), validation=0.0, epochs=1)
    assert (alone.final_name, alone.final, alone.held_out) == ("train", alone.train, None)
    assert {*alone.metrics[0]} == {"epoch", "train", "gates"}
    assert lines[2:] == ["  experts used per row: 1.00 of 2"]  # no mixture itself: nothing of single experts


def test_many_mixtures_are_counted(trained):
    gates = {f"blocks.{number}.gate": trained.test.gates["gate"] for number in range(9)}
    text = repr(replace(trained, evaluations={**trained.evaluations, "test": replace(trained.test, gates=gates)}))
    assert text.endswith("2.00 of 2 (blocks.0.gate), 2.00 of 2 (blocks.1.gate), 2.00 of 2 (blocks.2.gate), and 6 more")
    assert len(text) < 500


def test_a_table_holds_the_same_figures_escaped(trained):
    table = trained._repr_html_()
    cells = re.findall(r"<tr><th[^>]*>(.*?)</th><td>(.*?)</td></tr>", table)
    assert [f"  {name}: {value}" for name, value in cells] == repr(trained).splitlines()[1:]
    assert len(table) < 1000
    odd = replace(trained.alone[0], paths=("<script>",))
    assert "<script>" not in replace(trained, alone=(odd,))._repr_html_()
    assert "&lt;script&gt;" in replace(trained, alone=(odd,))._repr_html_()


def test_an_evaluation_is_one_line(trained):
    rows = trained.test
    line = f"Evaluation(40 rows: accuracy {rows.accuracy:.3f}, loss {rows.loss:.3f}, experts used per row 2.00 of 2)"
    assert repr(rows) == line
    assert "<td>2.00 of 2</td>" in rows._repr_html_()
    none = torch.zeros(2)
    assert (
        repr(Evaluation(*[none.long()] * 3, none, none, none == 0)) == "Evaluation(2 rows: accuracy 1.000, loss 0.000)"
    )


def test_an_expert_by_itself_is_one_line(trained):
    assert repr(trained.alone[0]) == "ExpertAlone(experts.0: Linear, 40 rows)"
    limited = replace(trained.alone[0], classes=(2, 0), paths=("experts.0", "experts.1.experts.0"))
    assert repr(limited) == "ExpertAlone(experts.0 and experts.1.experts.0: Linear, 40 rows, classes [2, 0])"


def test_settings_name_what_differs_from_the_defaults(settings, build, small_data, tmp_path):
    def spread(routing):
        return routing.probs.var()

    assert repr(Settings(epochs=3, batch_size=128)) == "Settings(epochs=3)"
    model = mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 2) for _ in range(2)])
    optimizer = torch.optim.SGD(model.parameters())
    chosen = Settings.model_validate({"epochs": 3, "optimizer": optimizer, "losses": [spread], "remember": False})
    text = "Settings(epochs=3, optimizer=OptimizerChoice(kind='SGD', lr=None), losses=(spread,), remember=False)"
    assert repr(chosen) == text
    member = Member(build(small_data()), chosen, 7, tmp_path)
    assert text in repr(member)
    for value in (member, settings(), Event("step", 1, 3, 9, 0.5, 1.25)):
        assert "tensor(" not in repr(value)
        assert len(repr(value)) < 600
