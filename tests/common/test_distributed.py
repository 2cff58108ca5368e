import os
import signal
import time

import pytest
import torch
from training_processes import environment, receive, run_together, start_together

from diffusion_policy.common import distributed
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.distributed import broadcast_, first_only, gather, is_first, local_device, mean_

BOUND_SEC = 20


def test_a_process_by_itself_does_nothing_to_what_it_is_given():
    tensor = torch.tensor([1.0, 2.0])
    assert mean_(tensor) is tensor
    broadcast_([tensor])
    assert tensor.tolist() == [1, 2]
    assert gather("a") == ["a"]
    assert (distributed.rank(), distributed.world_size(), is_first(), distributed.is_launched()) == (0, 1, True, False)


def _talk():
    rank = distributed.rank()
    mean = mean_(torch.arange(3.0) * rank)
    weights = [torch.full((2, 3), rank, dtype=torch.float32).T, torch.nn.Parameter(torch.full((4,), float(rank + 5)))]
    versions = [weight._version for weight in weights]
    broadcast_(weights)
    broadcast_([])
    if rank > 0:  # what depends on the weights sees that they are others
        assert all(weight._version > version for weight, version in zip(weights, versions, strict=True))
    said = []
    first_only(said.append)(rank)
    offset = rank + 10
    functions = gather(lambda x: x + offset)  # closures too
    return mean.tolist(), [weight.tolist() for weight in weights], said, [function(1) for function in functions]


def test_processes_tell_each_other():
    expected = [[0.0, 1.0, 2.0], [[[0.0, 0.0]] * 3, [5.0] * 4]]
    said = [[0], [], []]
    results = run_together(_talk, n=3)
    assert results == [(*expected, said[rank], [11, 12, 13]) for rank in range(3)]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_nobody_waits_for_ever_for_one_that_is_gone_or_hangs(how):
    def wait_for_others():
        if distributed.rank() == 1:
            os.kill(os.getpid(), how)
        return gather(distributed.rank())

    started = time.monotonic()
    (_, pipe), (other, _) = start_together(wait_for_others, timeout_sec=2)
    is_error, text = receive(pipe)
    assert is_error
    assert "gather" in text
    assert time.monotonic() - started < BOUND_SEC
    other.kill()


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_each_process_has_the_gpu_of_its_number(two_gpus, monkeypatch):
    for rank in range(2):
        for key, value in environment(rank, 2, 1).items():
            monkeypatch.setenv(key, value)
        for name in ("auto", "cuda", "cuda:0"):
            assert local_device(name) == torch.device("cuda", rank)
        assert local_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"training.device=cuda:1 is one GPU, .* use auto"):
        local_device("cuda:1")
    for key, value in environment(2, 3, 1).items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ConfigError, match="there are 2 GPUs for 3 processes: start at most one for each"):
        local_device("auto")


def test_a_process_that_was_not_launched_has_the_gpu_that_it_names(two_gpus):
    assert local_device("cuda:1") == torch.device("cuda:1")
    assert local_device("auto") == torch.device("cuda:0")
