import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import is_alive, parent_of, wait_for

from diffusion_policy.sweep import worker
from diffusion_policy.sweep.worker import CommandFailed, link_data, worker_fn

BOUND = Path(worker.__file__).with_name("bound.py")


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def blocked_interrupts():
    """As in what Ray starts, and ignored as in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    yield
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    signal.signal(signal.SIGINT, before)


@contextmanager
def interrupted_when(path):
    """Sends SIGINT to this process as soon as there is a file."""

    def interrupt():
        wait_for(path.exists)
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    yield
    thread.join()


def python(code):
    return ["python", "-c", code]


def test_runs_a_command_with_this_python_and_the_data(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    code = "import sys, os; print(sys.executable, os.listdir('data'), os.environ['PYTHONUNBUFFERED'], file=sys.stderr)"
    (tmp_path / "elsewhere" / "demo.zarr").touch()
    assert worker_fn(python(code), data_src="elsewhere", unbuffer_python=True, log=tmp_path / "log.txt") == 0
    assert os.path.realpath(sys.executable) == os.path.realpath((tmp_path / "log.txt").read_text().split()[0])
    assert "['demo.zarr'] 1" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (python("raise SystemExit(3)"), "ended with exit code 3"),
        (python("import os; os.kill(os.getpid(), 9)"), "killed by SIGKILL"),
        (["no_such_command"], "ended with exit code 1"),
    ],
)
def test_other_ends_are_failures(tmp_path, command, message):
    with pytest.raises(CommandFailed, match=message):
        worker_fn(command, log=tmp_path / "log.txt")
    if "no_such" in command[0]:
        assert "cannot run 'no_such_command': No such file" in (tmp_path / "log.txt").read_text()


@pytest.mark.usefixtures("blocked_interrupts")
def test_a_command_that_is_interrupted_has_not_failed():
    assert worker_fn(python("import os, signal; os.kill(os.getpid(), signal.SIGINT)"), log="log.txt") == -2


def test_interrupts_are_passed_on(tmp_path):
    """Also to a command that handles them and then ends in its own way."""
    code = (
        "import time, pathlib\n"
        "try:\n    pathlib.Path('begun').touch(); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    pathlib.Path('saved').touch(); raise SystemExit(1)"
    )

    before = signal.getsignal(signal.SIGINT)
    with interrupted_when(tmp_path / "begun"):
        assert worker_fn(python(code)) == -signal.SIGINT
    assert (tmp_path / "saved").exists()
    assert signal.getsignal(signal.SIGINT) == before


def test_a_command_that_ignores_interrupts_is_killed_with_all_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "GRACE", 0.5)
    code = (
        "import os, signal, subprocess, time, pathlib\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "pathlib.Path('pids.tmp').write_text(f'{os.getpid()} {child.pid}')\n"
        "os.rename('pids.tmp', 'pids'); time.sleep(60)"
    )

    with interrupted_when(tmp_path / "pids"):
        assert worker_fn(python(code)) == -signal.SIGINT
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        wait_for(lambda pid=pid: not is_alive(pid))


def _work(lock):
    worker_fn(["sh", "-c", "sleep 60 & echo $$ $! > pids.tmp; mv pids.tmp pids; wait"], lock=lock)


def test_command_and_its_children_die_with_the_worker_and_the_next_waits_for_it(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_work, args=(str(tmp_path / ".lock"),))
    process.start()
    wait_for((tmp_path / "pids").exists)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    assert all(map(is_alive, pids))

    early = [sys.executable, BOUND, str(os.getpid()), str(tmp_path / ".lock"), "touch", "too_early"]
    with subprocess.Popen(early, start_new_session=True) as waiting:
        time.sleep(0.5)
        waiting.kill()
    process.kill()
    process.join()
    assert worker_fn(["touch", "after"], lock=tmp_path / ".lock") == 0
    assert not any(map(is_alive, pids))
    assert not (tmp_path / "too_early").exists()


def test_command_dies_with_what_watches_it(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_work, args=(str(tmp_path / ".lock"),))
    process.start()
    wait_for((tmp_path / "pids").exists)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    os.kill(parent_of(pids[0]), signal.SIGKILL)
    process.join(30)
    assert process.exitcode == 1  # CommandFailed
    wait_for(lambda: not any(map(is_alive, pids)))


def test_a_folder_that_another_process_holds_is_refused(tmp_path):
    lock = tmp_path / ".lock"
    holder = subprocess.Popen(["flock", lock, "sleep", "60"])
    wait_for(lock.exists)
    code = (
        "import os, sys; from diffusion_policy.sweep import bound; bound.LOCK_TIMEOUT = 0.2; "
        f"bound.main(os.getppid(), '{lock}', 'true')"
    )
    root = Path(worker.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=30)
    holder.kill()
    holder.wait()
    assert done.returncode == 1
    assert f"another process is at work in {tmp_path}" in done.stderr


def test_data_is_linked(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    link_data("one")
    link_data(tmp_path / "one")
    assert (tmp_path / "data").resolve() == tmp_path / "one"
    link_data("two")
    assert (tmp_path / "data").resolve() == tmp_path / "two"
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*three \(data_src\)"):
        link_data("three")
    (tmp_path / "data").unlink()
    (tmp_path / "data").mkdir()
    link_data("./data")
    with pytest.raises(FileExistsError, match=r"data is to be a link to .*/one \(data_src\), but there is a folder"):
        link_data("one")
    assert not (tmp_path / "data").is_symlink()


def test_data_itself_is_made():
    link_data("./data")
    assert Path("data").is_dir()
    assert not Path("data").is_symlink()
