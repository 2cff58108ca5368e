"""Groups of environments that take turns with the policy, as a runner plays them."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from runner_log import scores, video_sizes
from torch import Tensor
from walk_runner import MAX_STEPS, Policy, StatelessPolicy, WalkRunner, constant, processes_of

from diffusion_policy.env_runner.episode import Episode


@pytest.fixture
def make_runner(tmp_path: Path, closed_at_end: Callable[[Any], Any]) -> Callable[..., WalkRunner]:
    """Makes a runner of five episodes, with seeds 7, 100, ..., 103, in two groups: of three and of two."""
    return lambda **kwargs: closed_at_end(WalkRunner(tmp_path, **{"n_env_groups": 2, **kwargs}))


def batch_sizes(policy: Policy) -> list[int]:
    return [len(seen["obs"]) for seen in policy.seen]


@pytest.mark.parametrize(
    ("settings", "batches"),
    [
        ({}, [3, 2] * 3),
        ({"n_envs": 3}, [2, 1] * 3 + [1, 1] * 3),
        ({"n_envs": 4}, [2, 2] * 3 + [1] * 3),
        ({"n_envs": 1}, [1] * 15),
        ({"n_env_groups": 3, "n_envs": 4}, [2, 1, 1] * 3 + [1] * 3),
        ({"n_env_groups": 50}, [1] * 15),
    ],
)
def test_results_do_not_depend_on_groups(
    make_runner: Callable[..., WalkRunner], settings: dict[str, Any], batches: list[int]
) -> None:
    expected = make_runner(n_env_groups=1).run(StatelessPolicy())
    policy = StatelessPolicy()
    runner = make_runner(**settings)
    log = runner.run(policy)
    assert scores(log) == scores(expected)
    assert list(log) == list(expected)
    assert video_sizes(log) == video_sizes(expected)
    assert batch_sizes(policy) == batches
    assert scores(runner.run(StatelessPolicy())) == scores(expected)


def test_past_actions_and_latency_are_each_groups_own(make_runner: Callable[..., WalkRunner]) -> None:
    def from_past(obs_dict: dict[str, Tensor]) -> Tensor:
        past = obs_dict.get("past_action", torch.ones(len(obs_dict["obs"]), 1, 1))
        return (past + obs_dict["obs"][:, -1:, 1:] % 3).repeat(1, 3, 1)

    settings = {"n_latency_steps": 1, "past_action": True}
    expected = scores(make_runner(n_env_groups=1, **settings).run(StatelessPolicy(from_past)))
    assert scores(make_runner(**settings).run(StatelessPolicy(from_past))) == expected


def test_environments_step_while_the_policy_predicts_for_the_other_group(
    make_runner: Callable[..., WalkRunner],
) -> None:
    runner = make_runner()

    def act(obs_dict: dict[str, Tensor]) -> Tensor:
        others = runner._envs[1 if len(obs_dict["obs"]) == 3 else 0]
        assert all(pipe.connection.poll(30) for pipe in others._pipes), "the other group does not step meanwhile"
        return constant(1.0, 1.0)(obs_dict)

    policy = StatelessPolicy(act)
    runner.run(policy)
    assert batch_sizes(policy) == [3, 2] * 3


def test_policy_that_remembers_sees_all_episodes_in_each_call(make_runner: Callable[..., WalkRunner]) -> None:
    runner = make_runner()
    remembering = Policy()
    expected = scores(runner.run(remembering))
    assert batch_sizes(remembering) == [5] * 3
    assert remembering.resets == 1
    stateless = StatelessPolicy()
    assert scores(runner.run(stateless)) == expected
    assert batch_sizes(stateless) == [3, 2] * 3
    assert len(processes_of(runner)) == 5
    assert scores(runner.run(Policy())) == expected


@pytest.mark.parametrize(
    ("seeds", "batches"), [([102, 103, 104, 1, 2], [3, 2, 2, 2]), ([1, 2, 3, 102, 103], [3, 2, 3, 3])]
)
def test_a_group_goes_on_when_the_other_is_over(
    make_runner: Callable[..., WalkRunner], seeds: list[int], batches: list[int]
) -> None:
    policy = StatelessPolicy(constant(1.0, 1.0))
    log = make_runner(episodes=[Episode("test/", seed) for seed in seeds], limit=101.5).run(policy)
    assert batch_sizes(policy) == batches
    for seed in seeds:
        assert log[f"test/sim_max_reward_{seed}"] == seed + (1 if seed > 101 else MAX_STEPS)


@pytest.mark.parametrize("index", [1, 3])
@pytest.mark.parametrize(("order", "report"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGSTOP, "within 1.5 s")])
def test_dead_or_hanging_environment_ends_the_run_with_its_seed(
    make_runner: Callable[..., WalkRunner], order: int, report: str, index: int
) -> None:
    runner = make_runner()
    expected = scores(runner.run(StatelessPolicy()))
    processes = processes_of(runner)
    for envs in runner._envs:
        envs.timeout = 1.5

    def harm(obs_dict: dict[str, Tensor]) -> Tensor:
        if processes[index].is_alive():
            os.kill(processes[index].pid, order)
        time.sleep(0.1)
        return constant(1.0, 1.0)(obs_dict)

    with pytest.raises(RuntimeError, match=f"(?s)test episode with seed {99 + index}.*{report}"):
        runner.run(StatelessPolicy(harm))
    assert not any(process.is_alive() for process in processes)
    assert scores(runner.run(StatelessPolicy())) == expected


def test_environment_that_raises_ends_the_run_with_its_seed(make_runner: Callable[..., WalkRunner]) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)test episode with seed 103.*Traceback.*no such start"):
        make_runner(broken_seed=103).run(StatelessPolicy())


def test_action_that_is_not_finite_is_named_and_no_video_stays(
    make_runner: Callable[..., WalkRunner], tmp_path: Path
) -> None:
    def spoil(obs_dict: dict[str, Tensor]) -> Tensor:
        action = constant(1.0, 1.0)(obs_dict)
        action[obs_dict["obs"][:, -1, 1] == 104] = float("nan")
        return action

    with pytest.raises(RuntimeError, match=r"not finite.* in test episode with seed 102\."):
        make_runner().run(StatelessPolicy(spoil))
    assert list((tmp_path / "media").iterdir()) == []


def test_progress_is_that_of_all_groups(
    make_runner: Callable[..., WalkRunner], capsys: pytest.CaptureFixture[str]
) -> None:
    make_runner(tqdm_interval_sec=0.0).run(StatelessPolicy(constant(1.0, 1.0)))
    shown = capsys.readouterr().err
    assert f"{2 * MAX_STEPS}/{2 * MAX_STEPS}" in shown
    assert "reward=88.600" in shown
