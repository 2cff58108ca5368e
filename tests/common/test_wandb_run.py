import subprocess
import sys

import pytest

from diffusion_policy.common.wandb_run import wandb_run

PROGRAM = """
import sys
from diffusion_policy.common.wandb_run import wandb_run
with wandb_run(sys.argv[1], sys.argv[2], {"a": 1}, project="test", name="n", resume=True, id=None) as log:
    log({"loss": 0.5}, 0)
print("done")
"""


@pytest.mark.parametrize("mode", ["auto", "online", "offline"])
def test_without_login_and_network_it_logs_offline_and_never_asks(tmp_path, mode, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    command = [sys.executable, "-c", PROGRAM, mode, str(tmp_path)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "done" in done.stdout
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


def test_logged_in_without_network_it_logs_offline(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # a port where nothing listens
    command = [sys.executable, "-c", PROGRAM, "auto", str(tmp_path)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "cannot be reached" in done.stderr
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


def test_disabled_writes_nothing(tmp_path):
    with wandb_run("disabled", str(tmp_path), {}) as log:
        log({"loss": 1.0}, 0)
    assert not list(tmp_path.iterdir())


def test_unknown_mode_is_refused(tmp_path):
    with (
        pytest.raises(ValueError, match="must be auto, online, offline or disabled, got 'maybe'"),
        wandb_run("maybe", str(tmp_path), {}),
    ):
        pass
