import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.lab.training.annealing import Annealing, numbers_of
from moebius.layers.mixture import Mixture
from moebius.routers.soft import Soft
from moebius.schedules import as_schedule

FALLING = {"kind": "linear", "start": 4.0, "end": 1.0, "epochs": 2}


def mixture(router):
    return Mixture(torch.nn.Linear(3, 2), [torch.nn.Linear(3, 3) for _ in range(2)], router)


def test_a_router_has_its_value_of_the_moment_inside_and_its_own_outside():
    model = torch.nn.Sequential(mixture(Soft()), mixture(Soft(temperature=2.0)))
    routers = [model[0].router, model[1].router]
    annealing = Annealing(model, {"temperature": as_schedule(FALLING)})
    with annealing.at(1.0):
        assert [router.temperature for router in routers] == [2.5, 2.5]
    assert [router.temperature for router in routers] == [1.0, 2.0]
    with pytest.raises(RuntimeError), annealing.at(0.0):
        raise RuntimeError
    assert [router.temperature for router in routers] == [1.0, 2.0]


def test_only_numbers_are_there_to_be_changed():
    assert numbers_of(Soft()) == ("temperature",)
    with pytest.raises(ArgumentError, match=r"training\.router\.temprature: .*") as caught:
        Annealing(mixture(Soft()), {"temprature": as_schedule(1.0)})
    assert caught.value.fix == "did you mean temperature?"


def test_training_sees_the_schedule_and_evaluation_does_not(small_data, settings, build, tmp_path, alone):
    """A gate so hot that it is uniform trains experts alike; afterwards it is as sharp as it was built."""
    data = small_data()
    seen = []
    loop = alone(build(data), data, settings(router={"temperature": FALLING}), 0, tmp_path)
    loop.model.router.register_forward_hook(lambda router, *_: seen.append((router.training, router.temperature)))
    loop.train()
    training = [temperature for mode, temperature in seen if mode]
    assert training == pytest.approx([4.0, 3.5, 3.0, 2.5, 2.0, 1.5])
    assert {temperature for mode, temperature in seen if not mode} == {1.0}
