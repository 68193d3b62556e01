"""A folder from elsewhere has links where files are written: what they point to stays as it is."""

import os

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.experts.adapter import Adapter
from moebius.kit.errors import StudyError
from moebius.kit.files import atomic_path, open_to_append
from moebius.lab.data.split import Split
from moebius.lab.study.folder_lock import folder_lock
from moebius.lab.study.submission import Submission
from moebius.lab.training.call_model import ModelCall
from moebius.lab.training.output_caches import OutputCaches

PRECIOUS = "a file that belongs to somebody else"


@pytest.fixture
def precious(tmp_path):
    path = tmp_path / "elsewhere" / "precious.txt"
    path.parent.mkdir()
    path.write_text(PRECIOUS)
    return path


@pytest.fixture(scope="module")
def written(small_job, tmp_path_factory):
    """The names of all files that a run writes, and of those that it had."""
    folder = tmp_path_factory.mktemp("links") / "out"
    job = small_job(folder)
    before = {path.relative_to(folder) for path in folder.rglob("*")}
    assert Submission.of(job, None, None)().reason is None
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return sorted(files - before)


def test_a_run_replaces_links_and_follows_none(small_job, written, precious, tmp_path):
    names = [name for name in written if name.name not in (".lock", "messages.jsonl")]
    assert {".pid", ".node", "result.json", "metrics.jsonl", "model.safetensors"} <= {name.name for name in names}
    folder = tmp_path / "out"
    job = small_job(folder)
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(precious.with_name(str(number)))
    outcome = Submission.of(job, None, None)()
    assert (outcome.reason, outcome.errors) == (None, {})
    assert not [name for name in names if (folder / name).is_symlink()]
    assert os.listdir(precious.parent) == ["precious.txt"]


@pytest.mark.parametrize("name", [".lock", "messages.jsonl"])
def test_a_job_refuses_a_link_that_it_cannot_replace(small_job, precious, tmp_path, name):
    job = small_job(tmp_path / "out")
    link = job.folder / "state" / name
    link.parent.mkdir()
    link.symlink_to(precious)
    outcome = Submission.of(job, None, None)()
    ((message, fix),) = outcome.errors.values() or [(outcome.reason, outcome.fix)]
    assert str(link) in message
    assert fix == f"mv {link} {link}.damaged"
    assert precious.read_text() == PRECIOUS


@pytest.mark.parametrize("name", [".lock", ".pid", ".node"])
@pytest.mark.parametrize("plant", ["symbolic", "hard", "dangling"])
def test_a_lock_leaves_what_a_link_points_to(precious, tmp_path, name, plant):
    folder, target = tmp_path / "my runs", precious
    folder.mkdir()
    if plant == "hard":
        (folder / name).hardlink_to(precious)
    else:
        target = precious if plant == "symbolic" else precious.with_name("new.txt")
        (folder / name).symlink_to(target)
    if name == ".lock" and plant != "hard":
        with pytest.raises(StudyError, match="a lock may not be a link") as caught, folder_lock(folder):
            raise AssertionError
        assert caught.value.fix == f"mv '{folder}/.lock' '{folder}/.lock.damaged'"
    else:
        with folder_lock(folder):
            pass
    assert precious.read_text() == PRECIOUS
    assert os.listdir(precious.parent) == ["precious.txt"]


def test_a_lock_waits_for_no_pipe(tmp_path):
    for name in (".lock", ".pid", ".node"):
        os.mkfifo(tmp_path / name)
    with folder_lock(tmp_path):
        assert (tmp_path / ".pid").read_text() == str(os.getpid())


def test_remembered_outputs_are_locked_by_no_link(precious, tmp_path):
    experts = [Adapter(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), frozen=True) for _ in range(2)]
    model = mb.Mixture(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), experts)
    zeros = torch.zeros(5, dtype=torch.int64)
    caches = OutputCaches(ModelCall(model), lambda part, split: tmp_path / f"{split}.safetensors")
    (tmp_path / ".train.safetensors.lock").symlink_to(precious)
    with pytest.raises(StudyError, match="a lock may not be a link"):
        caches.cache_of(Split(torch.zeros(5, 1, 2, 2), zeros, zeros), "train")
    assert precious.read_text() == PRECIOUS


@pytest.mark.parametrize("plant", ["symbolic", "hard", "dangling"])
def test_an_atomic_file_replaces_a_link(precious, tmp_path, plant):
    path = tmp_path / "a.json"
    for place in (path, tmp_path / f".{path.name}.{os.getpid()}.tmp.json"):
        if plant == "hard":
            place.hardlink_to(precious)
        else:
            place.symlink_to(precious if plant == "symbolic" else precious.with_name("new.txt"))
    with atomic_path(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert not path.is_symlink()
    assert precious.read_text() == PRECIOUS
    assert os.listdir(precious.parent) == ["precious.txt"]


@pytest.mark.parametrize("plant", ["symbolic", "dangling", "pipe", "device", "folder"])
def test_lines_are_added_to_plain_files_alone(precious, tmp_path, plant):
    path = tmp_path / "lines.jsonl"
    targets = {"symbolic": precious, "dangling": precious.with_name("new.txt"), "device": "/dev/null"}
    if plant == "pipe":
        os.mkfifo(path)
    elif plant == "folder":
        path.mkdir()
    else:
        path.symlink_to(targets[plant])
    with pytest.raises(OSError, match=r"lines\.jsonl"):
        open_to_append(path)
    assert precious.read_text() == PRECIOUS
    assert os.listdir(precious.parent) == ["precious.txt"]
