import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion_policy.common.device import has_triton

SCRIPT = Path(__file__).with_name("compile_kernels.py")


@pytest.mark.skipif(not has_triton(), reason="Triton is not installed: it comes with torch for CUDA")
def test_kernels_compile_for_a_gpu(repository, tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, SCRIPT], cwd=repository, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2 * 12 + 2
