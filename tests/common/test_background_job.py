import subprocess
import sys
import threading

import pytest

from diffusion_policy.common.background_job import BackgroundJob


def test_a_second_job_waits_for_the_first():
    job, go, done = BackgroundJob("test"), threading.Event(), []

    def first():
        go.wait(10)
        done.append(1)

    job.start(first)
    assert not job.is_idle
    assert not job.has_ended
    threading.Timer(0.05, go.set).start()
    job.start(lambda: done.append(2))
    assert done[0] == 1
    job.wait()
    assert done == [1, 2]
    assert job.is_idle


def test_an_error_is_raised_once_and_the_next_job_runs():
    job, done = BackgroundJob("test"), []
    job.start(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        job.start(lambda: done.append(1))
    assert done == []
    job.start(lambda: done.append(2))
    job.wait()
    assert done == [2]
    job.start(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        job.wait()
    job.wait()


def test_the_interpreter_waits_for_the_job(tmp_path):
    program = (
        "import pathlib, sys, time\n"
        "from diffusion_policy.common.background_job import BackgroundJob\n"
        "BackgroundJob('test').start(lambda: (time.sleep(0.3), pathlib.Path(sys.argv[1]).touch()))\n"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "done"], check=True, timeout=60)
    assert (tmp_path / "done").exists()
