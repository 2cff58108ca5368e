import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits its address space")
def test_trains_on_more_images_than_memory_takes(repository, tmp_path):
    """10 GB of images; the process, and each of those that load batches, may take 1.2 GB beyond its own size."""
    command = [sys.executable, str(HERE / "limited_memory.py"), str(repository), str(tmp_path), "10e9"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent), str(repository)])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["refused"]  # reading them into memory
    assert result["right"]
    assert result["steps"] == 3
    assert result["images"] > 1.5 * result["limit"]
    assert result["resident"] < result["images"] / 4
