"""What all schedulers share, with one that calls submissions in a thread of this process."""

import json
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest

from moebius.kit.errors import StudyError
from moebius.lab.study import scheduler, submission
from moebius.lab.study.job_files import JobFiles
from moebius.lab.study.run_files import read_error
from moebius.lab.study.scheduler import Scheduler
from moebius.lab.study.submission import Outcome, Submission

DIVERGES = "variants.conv={experts: {kind: mlp, hidden: [8]}, training: {optimizer: {kind: sgd, lr: 1e30}}}"


class Thread(Scheduler):
    """One job at a time, in the order of submission."""

    text = "a thread"

    def __init__(self, change=lambda submission: submission):
        super().__init__()
        self.pool, self.change = ThreadPoolExecutor(1), change
        self.submitted, self.cancelled, self.most = [], [], 0

    def submit(self, submission):
        call = self.change(submission)
        self.submitted.append(submission.folder.parent.name.partition("-")[0])
        return Handle(self, submission, self.pool.submit(call))

    def close(self):
        self.pool.shutdown()


class Handle:
    def __init__(self, owner, submission, future: Future):
        self.owner, self.submission, self.future = owner, submission, future

    def poll(self):
        return self.future.result() if self.future.done() else None

    def cancel(self):
        self.future.cancel()
        self.owner.cancelled.append(self.submission.folder)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(scheduler, "POLL_SECONDS", 0.01)


def test_gives_the_events_and_the_bits_of_this_machine(planned, record, train, bits, tmp_path):
    here, there = planned(tmp_path / "here", seeds=2), planned(tmp_path / "there", seeds=2)
    local, remote, executor = record(), record(), Thread()
    train(here, local)
    train(there, remote, executor)
    assert len(executor.submitted) == len(here.plan.jobs(here.plan.runs))
    assert bits(here.plan) == bits(there.plan)
    assert len(bits(here.plan)) == 3 * 4
    assert sorted(remote.finished) == sorted(local.finished)
    assert not remote.failures
    assert not executor.cancelled

    def epochs(heard):
        return sorted(event for event in heard.events if event[1] == "epoch")

    assert epochs(remote) == epochs(local)
    assert not list(tmp_path.rglob("messages.jsonl"))


def test_stages_are_done_before_the_runs_that_use_them(stage_study, stage_recipe, few_stages, record, train, tmp_path):
    study, executor, heard = stage_study(stage_recipe(few_stages()), tmp_path / "out"), Thread(), record()
    train(study, heard, executor)
    assert not heard.failures
    place = executor.submitted.index
    assert place("a") < place("on")  # on-a
    assert max(place("on"), place("b")) < place("tuned")
    alone, by_thread = stage_study(stage_recipe(few_stages()), tmp_path / "alone"), study
    assert alone.run() == {}
    assert alone.bits() == by_thread.bits()


def test_a_run_that_fails_says_why_and_does_not_stop_the_others(planned, record, train, tmp_path):
    study, heard = planned(tmp_path, DIVERGES, "training.epochs=1"), record()
    train(study, heard, Thread())
    assert heard.finished == ["linear/seed-0"]
    assert list(heard.failures) == ["conv/seed-0"]
    assert "cross_entropy is not a finite number" in heard.failures["conv/seed-0"].message
    failure = read_error(study.plan.runs[1].folder)
    assert failure is not None
    assert failure["diverged"]


def test_the_queue_is_the_schedulers_unless_the_user_limits_it(planned, record, train, tmp_path):
    def most_at_a_time(folder, most):
        executor, study = Thread(), planned(folder, "training.epochs=1", cohorts="never", seeds=2)
        counts = []
        submit = executor.submit

        def counted(submission):
            counts.append(len(counts) + 1 - len(ended))
            return submit(submission)

        ended = []
        heard = record()
        heard.finish = ended.append
        executor.submit = counted
        train(study, heard, executor, most)
        return max(counts)

    assert most_at_a_time(tmp_path / "all", None) == 4
    assert most_at_a_time(tmp_path / "two", 2) == 2


def test_an_interrupt_cancels_what_has_not_ended_and_the_study_goes_on_by_another_executor(
    planned, record, train, bits, tmp_path
):
    options = {"seeds": 2, "cohorts": "never"}
    study, executor = planned(tmp_path / "out", **options), Thread()
    with pytest.raises(KeyboardInterrupt):
        train(study, record(lambda run, event: event.kind == "epoch"), executor)
    assert len(executor.cancelled) >= 3
    again, whole = record(), planned(tmp_path / "whole", **options)
    train(study, again)
    train(whole, record())
    assert again.finished
    assert bits(study.plan) == bits(whole.plan)


def test_a_scheduler_that_is_lost_ends_the_study_with_its_error(planned, record, train, tmp_path):
    def lost(submission):
        if executor.submitted:
            raise StudyError("the head of the cluster is lost", "start it again")
        return submission

    executor = Thread(lost)
    with pytest.raises(StudyError, match="the head of the cluster is lost"):
        train(planned(tmp_path, cohorts="never", seeds=2), record(), executor)
    assert len(executor.cancelled) == 1


def test_a_job_that_is_lost_costs_its_runs_alone(planned, record, train, tmp_path):
    def lose_first(submission):
        return submission if executor.submitted else lambda: Outcome(reason="its node is gone", fix="another node")

    executor, heard, study = Thread(lose_first), record(), planned(tmp_path, cohorts="never")
    train(study, heard, executor)
    first, second = study.plan.runs
    assert heard.failures[first.name].message == "its node is gone"
    assert read_error(first.folder) == {"message": "its node is gone", "fix": "another node"}
    assert heard.finished == [second.name]
    train(study, again := record())
    assert again.finished == [first.name]
    assert read_error(first.folder) is None


def test_a_node_that_does_not_see_the_folder_is_named(planned, record, train, tmp_path, monkeypatch):
    def elsewhere(submission):
        return replace(submission, folder=tmp_path / "mounted" / "elsewhere")

    monkeypatch.setattr(submission.platform, "node", lambda: "node-7")
    study, heard = planned(tmp_path / "out", cohorts="never"), record()
    train(study, heard, Thread(elsewhere))
    error = heard.failures[study.plan.runs[0].name]
    assert error.message.startswith(f"node node-7 does not see {tmp_path / 'mounted' / 'elsewhere'} ")
    assert "a folder that all nodes share" in (error.fix or "")
    assert not (tmp_path / "mounted").exists()


def test_a_node_with_another_folder_of_the_same_name_is_refused(planned, tmp_path):
    study = planned(tmp_path / "out")
    job = study.plan.jobs(study.plan.runs)[0]
    job.write()
    submission = Submission.of(job, None, None)
    path = job.folder / "job.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    outcome = submission()
    assert "does not see" in (outcome.reason or "")
    assert not (job.folder / "result.json").exists()


def test_results_that_stay_on_the_node_are_missed(planned, record, train, tmp_path, monkeypatch):
    def to_a_disk_of_its_own(submission):
        disk = tmp_path / "disk" / submission.folder.parent.name
        shutil.copytree(submission.folder, disk)
        return replace(submission, folder=disk)

    monkeypatch.setattr(scheduler, "VISIBLE_SECONDS", 0.1)
    study, heard = planned(tmp_path / "out", "training.epochs=1"), record()
    train(study, heard, Thread(to_a_disk_of_its_own))
    assert (tmp_path / "disk" / study.plan.runs[0].variant / "result.json").exists()
    message = heard.failures[study.plan.runs[0].name].message
    assert "has finished it, and " in message
    assert message.endswith("result.json is not here")


def test_other_versions_on_a_node_are_refused(planned, tmp_path):
    study = planned(tmp_path / "out")
    job = study.plan.jobs(study.plan.runs)[0]
    job.write()
    submission = Submission.of(job, None, None)
    outcome = replace(submission, versions={**submission.versions, "torch": "1.0"})()
    assert "other versions, which may give other bits (torch " in (outcome.reason or "")
    assert (outcome.fix or "").startswith("pip install torch==1.0 ")
    assert not (job.folder / "model.safetensors").exists()


def test_a_second_attempt_leaves_the_folder_to_the_first(planned, started, tmp_path, monkeypatch):
    """A node that is thought dead may still be at work: its lock keeps the next attempt off its files."""
    study = planned(tmp_path / "out")
    job = study.plan.jobs(study.plan.runs)[0]
    job.write()
    hold = "import sys, time; from pathlib import Path; from moebius.lab.study.folder_lock import folder_lock\n"
    hold += "with folder_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    process = started(job.folder / "state", code=hold)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    (job.folder / "state" / ".node").write_text("node-7")
    before = {path: path.read_bytes() for path in job.folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(submission, "LOCK_SECONDS", 0.2)
    outcome = Submission.of(job, None, None)()
    message, fix = outcome.errors[0]
    assert f"another process (pid {process.pid} on node-7) is at work on this folder" in message
    assert fix is not None
    after = {path: path.read_bytes() for path in job.folder.rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before.get(path)} == {job.folder / "state" / "messages.jsonl"}


def test_resources_are_the_plans_unless_they_are_given(planned, tmp_path):
    study = planned(tmp_path / "out", threads=3)
    job = study.plan.jobs(study.plan.runs)[0]
    job.write()
    first, second = Submission.of(job, None, None), Submission.of(job, 8, 0.5)
    assert (first.cpus, first.gpus) == (3, 0)
    assert (second.cpus, second.gpus) == (8, 0.5)
    assert Submission.of(replace(job, device="cuda"), None, None).gpus == 1


def test_without_a_shared_folder_files_travel(stage_study, stage_recipe, few_stages, record, train, tmp_path):
    def elsewhere(submission):
        assert set(submission.files.runs) == {submission.files.folder}
        return replace(submission, folder=tmp_path / "nowhere")

    study, executor, heard = stage_study(stage_recipe(few_stages()), tmp_path / "out"), Thread(elsewhere), record()
    executor.shared = False
    train(study, heard, executor)
    assert not heard.failures
    alone = stage_study(stage_recipe(few_stages()), tmp_path / "alone")
    assert alone.run() == {}
    assert alone.bits() == study.bits()
    assert not (tmp_path / "nowhere").exists()


def test_errors_come_back(planned, record, train, tmp_path):
    study, executor, heard = planned(tmp_path / "out", DIVERGES, cohorts="never"), Thread(), record()
    executor.shared = False
    train(study, heard, executor)
    assert heard.finished == ["linear/seed-0"]
    assert "not finite" in heard.failures["conv/seed-0"].message
    assert read_error(study.out / "conv" / "seed-0")["diverged"]


def test_stages_elsewhere_cannot_travel(stage_study, stage_recipe, few_stages, record, train, tmp_path):
    study = stage_study(stage_recipe(few_stages()), tmp_path / "out", stages_dir=tmp_path / "stages")
    executor = Thread()
    executor.shared = False
    with pytest.raises(StudyError, match="cannot travel to nodes that share no folder"):
        train(study, record(), executor)


def test_a_file_that_leads_out_of_the_study_is_refused(tmp_path):
    for name in ("../other", "/etc/other", "linear/../../other"):
        with pytest.raises(StudyError, match="not of its job"):
            JobFiles("linear/seed-0", ["linear/seed-0"], {name: b""}).unpack(tmp_path)
    assert not list(tmp_path.iterdir())
