import json
import os
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_runs_killed_at_any_moment_end_as_undisturbed_ones(repository, few_demonstrations, tmp_path):
    """Twenty-five kills, many of them while a checkpoint is being written: same files, byte for byte, and same log."""
    path = os.pathsep.join(map(str, (repository, repository / "tests", repository / "tests" / "workspace")))
    done = subprocess.run(
        [sys.executable, "-m", "killed_runs", repository, few_demonstrations, tmp_path, "25"],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert all(result["equal"])
    assert result["while_saving"] >= 5
    assert len(set(result["steps"])) > 12  # they fell into different parts of the run
    assert len(result["files"]) == 3  # the two best and the latest: nothing unfinished is left
    for run in tmp_path.iterdir():
        for path in run.rglob("*.ckpt"):
            path.unlink()
