import os
import time

import pytest

from moebius.kit.errors import StudyError
from moebius.lab.study.folder_lock import folder_lock

HOLD = """
import sys, time
from pathlib import Path
from moebius.lab.study.folder_lock import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def holder(started, tmp_path):
    process = started(tmp_path / "study", 60, code=HOLD)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_with_pid_and_fix(holder, tmp_path):
    folder = tmp_path / "study"
    with pytest.raises(StudyError) as caught, folder_lock(folder):
        raise AssertionError
    assert caught.value.message == f"{folder}: another process (pid {holder.pid}) is at work on this folder"
    assert caught.value.fix == f"wait for it, or --out {folder}-2"


def test_a_killed_holder_lets_go(holder, tmp_path):
    holder.kill()
    holder.wait()
    with folder_lock(tmp_path / "study"):
        assert (tmp_path / "study" / ".pid").read_text() == str(os.getpid())


def test_waits_for_a_holder_that_ends(started, tmp_path):
    process = started(tmp_path, 0.5, code=HOLD)
    assert process.stdout is not None
    process.stdout.readline()
    begun = time.monotonic()
    with folder_lock(tmp_path, wait=20):
        assert 0.1 < time.monotonic() - begun < 20


def test_the_folder_is_free_again_after_the_block_and_after_an_error(tmp_path):
    with pytest.raises(KeyError), folder_lock(tmp_path):
        raise KeyError
    for _ in range(2):
        with folder_lock(tmp_path):
            pass


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / "study"
    with pytest.raises(StudyError, match="cannot be written") as caught, folder_lock(folder):
        raise AssertionError
    assert str(folder) in caught.value.message
    assert caught.value.fix == "--out a-folder-of-yours"
    assert (tmp_path / "file").read_text() == "in the way"
