"""The lines of docs/training.md for each tracker, run offline where it is installed; what it has kept is read back."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "training.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
# Before the lines of a tracker: where it is to write. After them: reading back, three epochs of validation losses.
TRACKERS = {
    "tensorboard": (
        "",
        """
writer.close()
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator("runs/moe")
events.Reload()
losses = [scalar.value for scalar in events.Scalars("validation/loss")]
""",
    ),
    "wandb": (
        "",
        """
from pathlib import Path
(path,) = Path("wandb").glob("offline-run-*/run-*.wandb")  # records in a binary format of its own
assert path.read_bytes().count(b"validation/loss") >= 3
losses = [1.0] * 3
""",
    ),
    "mlflow": (
        "import mlflow; mlflow.set_tracking_uri('file:' + __import__('os').getcwd() + '/mlruns')",
        """
(run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "validation/loss")
losses = [metric.value for metric in history]
""",
    ),
    "trackio": (
        "",
        """
import json, sqlite3
rows = sqlite3.connect("trackio/moe.db").execute("select metrics from metrics order by step").fetchall()
losses = [json.loads(row)["validation/loss"] for (row,) in rows]
""",
    ),
}


def test_the_page_has_a_block_for_each_tracker():
    assert [block.splitlines()[0] for block in BLOCKS[1:]] == [f"# needs {name}" for name in TRACKERS]


@pytest.mark.parametrize("name", TRACKERS)
def test_a_line_suits_it(name, tmp_path):
    pytest.importorskip(name, reason=f"{name} is not installed", exc_type=ImportError)
    before, after = TRACKERS[name]
    (block,) = [block for block in BLOCKS if block.startswith(f"# needs {name}\n")]
    script = "\n".join([BLOCKS[0], before, block, after, "assert len(losses) == 3 and all(0 < x < 3 for x in losses)"])
    offline = {"WANDB_SILENT": "true", "MLFLOW_ALLOW_FILE_STORE": "true", "TRACKIO_DIR": str(tmp_path / "trackio")}
    environment = {**os.environ, **offline}
    # A process of its own: trackers start threads, and their imports warn.
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
