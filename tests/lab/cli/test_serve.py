"""`moebius serve` as a process: it prints an address, answers there, and ends on Ctrl-C."""

import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from typer.testing import CliRunner

import moebius as mb
from moebius.lab.cli import app

RECIPE = {
    "name": "pictures",
    "data": {"sets": [{"kind": "digits"}], "size": 8, "train_rows": 100, "test_rows": 50},
    "training": {"epochs": 1},
    "model": {"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}},
    "variants": {"soft": {}},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return mb.lab.run(RECIPE, tmp_path_factory.mktemp("served") / "study", workers=1) / "soft" / "seed-0"


def invoke(*arguments):
    result = CliRunner().invoke(app, ["serve", *map(str, arguments)])
    return result.exit_code, result.output


def test_it_serves_until_it_is_interrupted(run):
    command = [sys.executable, "-m", "moebius", "serve", str(run), "--no-browser", "--rows", "20"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert "20 of 50 test" in answer.read().decode()
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Traceback" not in complaints
    assert "ended" in complaints


def test_a_port_in_use_is_an_error_with_a_fix(run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        status, text = invoke(run, "--no-browser", "--rows", 5, "--port", taken.getsockname()[1])
    assert status == 2
    assert "port: cannot be opened (address already in use)" in text
    assert "0 for any that is free" in text


def test_it_exports_a_page(run, tmp_path):
    status, text = invoke(run, "--export", tmp_path / "page", "--export-rows", 7, "--split", "train")
    assert status == 0
    assert "index.html" in text
    page = (tmp_path / "page" / "index.html").read_text()
    assert page.count('<a class="card') == 7
    assert "train:" in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "no finished run"),
        (["RUN", "--split", "exam"], "needs one of test, train"),
        (["RUN", "--data", "rows.safetensors"], "cannot be read"),
    ],
)
def test_what_cannot_be_served_is_an_error(run, arguments, words):
    status, text = invoke(*[run if argument == "RUN" else argument for argument in arguments])
    assert status == 2
    assert words in text
