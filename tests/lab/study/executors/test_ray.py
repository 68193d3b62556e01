"""Ray, on real clusters of this machine."""

import pytest

pytest.importorskip("ray", reason="ray is not installed (pip install 'moebius[ray]')")

from moebius.kit.errors import StudyError
from moebius.lab.study.executors import Ray

pytestmark = [
    pytest.mark.slow,
    # Ray leaves sockets and pipes to the garbage collector.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes of one core each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


def test_a_node_that_dies_costs_nothing_but_time(cluster, planned, record, train, bits, tmp_path):
    options, epochs = {"seeds": 2, "cohorts": "never"}, "training.epochs=40"
    here, there = (planned(tmp_path / name, epochs, **options) for name in ("here", "there"))
    train(here, record())
    begun, killed = set(), []

    def kill_once(run, event):
        begun.add(run.name)
        # One core a node: when two runs have begun, both nodes are at work.
        if len(begun) == 2 and not killed:
            killed.append(sorted(begun))
            cluster.remove_node(cluster.second, allow_graceful=False)
        return False

    heard = record(kill_once)
    train(there, heard, Ray(address=cluster.address))
    assert killed
    assert not heard.failures
    assert sorted(heard.finished) == sorted(run.name for run in there.plan.runs)
    resumed = [name for name, kind, step in heard.events if kind == "resumed" and step > 0]
    assert len(resumed) == 1
    assert resumed[0] in killed[0]
    assert bits(there.plan) == bits(here.plan)


def test_errors_and_interrupts(cluster, planned, record, train, tmp_path):
    study = planned(tmp_path / "demand")
    with pytest.raises(StudyError, match="no node of the Ray cluster has 64 CPU and 0 GPU") as caught:
        train(study, record(), Ray(address=cluster.address, cpus=64))
    assert caught.value.fix == "--cpus 1"

    changes = "variants={linear: {}, bad: {training: {losses: [{kind: z_loss, weight: 1e39}]}}}"
    study, heard = planned(tmp_path / "bad", changes, "training.epochs=1"), record()
    train(study, heard, Ray(address=cluster.address))
    assert heard.finished == ["linear/seed-0"]
    assert "epoch 1, step 1" in heard.failures["bad/seed-0"].message

    study = planned(tmp_path / "long", "training.epochs=5000", "variants={linear: {}}")
    with pytest.raises(KeyboardInterrupt):
        train(study, record(lambda run, event: event.kind == "epoch"), Ray(address=cluster.address))
    again = planned(tmp_path / "long", "training.epochs=5000", "variants={linear: {}}")
    # The task is gone: its lock is free, and the study goes on from the checkpoint here.
    heard = record(lambda run, event: event.kind == "epoch")
    with pytest.raises(KeyboardInterrupt):
        train(again, heard)
    assert heard.events[0][1] == "resumed"
    assert heard.events[0][2] > 0
