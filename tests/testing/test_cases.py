"""The walk over rooms, what arguments components are made with, and components from outside of the package."""

import os
import subprocess
import sys

import pytest
import torch

import moebius as mb
from moebius.kit.errors import ArgumentError, UnknownKindError
from moebius.kit.registry import ROOMS, find, kinds
from moebius.storage.spec import ROOMS as SAVED
from moebius.testing import ContractError, cases, check_component
from moebius.testing._run import run_check
from moebius.testing._subject import Subject
from moebius.testing._variation import vary_arguments
from moebius.testing.cases import checks


@pytest.mark.parametrize("room", ROOMS)
def test_every_check_of_every_kind_is_a_case_but_for_exemptions(room):
    exempt = [f"{kind}.{name}" for kind in kinds(room) for name in getattr(find(room, kind), "exempt", {})]
    every = [f"{kind}.{check.__name__}" for kind in kinds(room) for check in checks(room)]
    assert [name for name, _ in cases(room)] == [name for name in every if name not in exempt]
    expected = {
        "combine": [
            "components.gives_one_output_for_each_row",
            "components.does_not_depend_on_the_order_of_experts",
            "components.gives_equal_outputs_whatever_their_weights",
            "linear_stack.gives_equal_outputs_whatever_their_weights",
        ],
        "gates": ["float32_linear.scores_every_row_for_every_expert"],
        "experts": ["abstention.has_the_gradients_of_finite_differences"],
        "diagnostics": ["drops.does_not_depend_on_the_batches", "max_violation.does_not_depend_on_the_batches"],
        "losses": ["distillation.has_the_gradients_of_finite_differences"],
        "tasks": ["multi_task.gives_each_expert_the_loss_that_it_has_alone"],
    }
    assert exempt == expected.get(room, [])


@pytest.mark.parametrize("room", ROOMS)
def test_every_check_says_its_rule(room):
    assert len({check.__name__ for check in checks(room)}) == len(checks(room))
    assert all(check.__doc__ and check.__doc__.splitlines()[0].endswith(".") for check in checks(room))


def test_cases_are_left_out_by_kind_by_check_and_by_both():
    every = dict(cases("schedules"))
    some = dict(cases("schedules", ["cosine", "documents_itself", "step.has_an_example_that_runs"]))
    left_out = {name for name in every if name.startswith("cosine.") or name.endswith(".documents_itself")}
    assert every.keys() - some.keys() == left_out | {"step.has_an_example_that_runs"}
    with pytest.raises(UnknownKindError, match=r"^skip: nothing is called 'cosin'\n  fix: did you mean cosine"):
        cases("schedules", ["cosin"])
    with pytest.raises(UnknownKindError, match=r"^room: nothing is called 'gate'\n  fix: did you mean gates\?"):
        cases("gate")


def test_an_exemption_has_to_name_a_check(monkeypatch):
    monkeypatch.setattr(mb.gates.Uniform, "exempt", {"scores_a_singel_expert": "it has no reason"}, raising=False)
    with pytest.raises(UnknownKindError, match=r"(?s)^uniform\.exempt: nothing is called .*fix: did you mean scores"):
        cases("gates")
    monkeypatch.setattr(mb.gates.Uniform, "exempt", {"scores_a_single_expert": "a reason"})
    assert "uniform.scores_a_single_expert" not in dict(cases("gates"))


def test_a_check_leaves_torchs_generator_as_it_was():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    check_component("gates", "uniform")
    vary_arguments(Subject.of_kind("experts", "mlp"))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_argument_that_nothing_says_is_asked_for():
    with pytest.raises(ArgumentError, match=r"^path: nothing says what data\.sources folder is to be made") as caught:
        check_component("data.sources", "folder")
    assert caught.value.fix == (
        "check_component('data.sources', 'folder', path=…), or `example = {'path': …}` in the component"
    )


def test_a_component_says_its_example():
    class Deep(torch.nn.Sequential):
        example = {"layers": ["a", "b"]}  # noqa: RUF012

        def __init__(self, layers: list[str], features: int, depth: float, width: float):
            super().__init__()
            self.settings = (layers, features, depth, width)

    subject = Subject("experts", Deep)
    # Numbers that are not given differ from each other.
    assert subject.make().settings == (["a", "b"], 64, 1.5, 2.0)
    Deep.example = staticmethod(lambda facts: {"layers": [], "depth": facts["experts"]})
    assert subject.make(features=3).settings == ([], 3, 3, 2.0)


# What keeps its default: functions, parts that are combines or of any type, and what another network would need.
KEPT = {("adapter", "transform"), ("adapter", "output"), ("position_mixture", "channel_axis")}
KEPT |= {("adapter", "others"), ("adapter", "kept_classes")}
KEPT |= {(f"{kind}_mixture", "combine") for kind in ("attentive", "multi_gate", "position")}
KEPT |= {(kind, "combine") for kind in ("mixture", "cgc", "tempered")}


@pytest.mark.parametrize(("room", "kind"), [(room, kind) for room in SAVED for kind in kinds(room)])
def test_all_arguments_are_varied_of_components_that_are_saved(room, kind):
    subject = Subject.of_kind(room, kind)
    varied, given = vary_arguments(subject), subject.all_arguments()
    for name, parameter in subject.parameters.items():
        if (kind, name) not in KEPT and name not in given:
            assert name in varied, name
            assert varied[name] != parameter.default, name


def test_a_failing_case_names_room_kind_and_rule(monkeypatch):
    monkeypatch.setattr(mb.gates.Uniform, "forward", lambda gate, x: 1 / 0)
    case = dict(cases("gates"))["uniform.permuting_rows_permutes_scores"]
    with pytest.raises(ZeroDivisionError) as caught:
        case()
    assert caught.value.__notes__ == [
        "gates uniform, in the check permuting_rows_permutes_scores: A row's scores do not depend on its place."
    ]
    with pytest.raises(ContractError, match=r"^losses <lambda>: has no 'loss' in its docstring"):
        run_check(checks("losses")[11], Subject("losses", lambda routing: routing.scores.sum()))


OUTSIDE = '''
import sys
import torch, moebius as mb
from moebius.testing import cases, check_component

@mb.register("gates")
class Brightness(torch.nn.Module):
    """Scores by the mean of the pixels.

    Example:
        >>> Brightness(2)(torch.zeros(3, 1, 2, 2)).shape
        torch.Size([3, 2])

    Reference: ours.
    """

    def __init__(self, experts: int, scale: float = 1.0):
        super().__init__()
        if experts < 1:
            raise mb.ArgumentError("experts", "needs at least 1", experts, "experts=2")
        self.experts, self.scale = experts, scale
        self.linear = torch.nn.Linear(1, experts)

    def forward(self, x):
        return self.scale * self.linear(x.flatten(1).mean(1, keepdim=True))

@mb.register("routers", "cool_soft")
class CoolSoft(mb.routers.Soft):
    """All experts, at a temperature of its own.

    Example:
        >>> CoolSoft().temperature
        0.5

    Reference: ours.
    """

    def __init__(self, temperature: float | int = 0.5):
        super().__init__(temperature)

@mb.register("losses")
@mb.needs(distribution=True)
def largest(routing):
    """How sure the gate is.

    loss = −mean_i max_e G(x_i)_e

    Range [−1, −1/E].

    Example:
        >>> largest(mb.routers.Soft()(torch.zeros(1, 2)))
        tensor(-0.5000)

    Reference: ours.
    """
    if not routing.distribution:
        raise mb.ArgumentError("routing.distribution", "needs one", False, "normalisation: softmax")
    return -routing.probs.amax(-1).sum() / max(1, len(routing.probs))

assert "pytest" not in sys.modules
for room, kind in (("gates", "brightness"), ("routers", "cool_soft"), ("losses", "largest")):
    mine = [(name, check) for name, check in cases(room) if name.startswith(kind + ".")]
    for name, check in mine:
        check()
    check_component(room, kind)
    print(room, len(mine))
assert not [name for name in sys.modules if name.startswith("moebius.lab")]
'''


def test_components_of_a_users_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OUTSIDE)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(file)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{room} {len(checks(room))}" for room in ("gates", "routers", "losses")]
