"""Starts a script in several processes, with the environment that launchers give them."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def launched(script: Path, count: int, words: Sequence[str], timeout: int = 120) -> list[subprocess.CompletedProcess]:
    """The processes, when all have ended; `accelerate launch` and `torchrun` set these variables, among others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, str(script), *words],
            env={**os.environ, **(common if count > 1 else {}), "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        texts = [process.communicate(timeout=timeout)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    return [
        subprocess.CompletedProcess(process.args, process.returncode, text)
        for process, text in zip(running, texts, strict=True)
    ]
