import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from runner_log import scores
from torch import Tensor
from walk_runner import MAX_STEPS, Policy, WalkRunner, constant, processes_of

from diffusion_policy.common.pyav import av
from diffusion_policy.env_runner.episode import Episode


@pytest.fixture
def make_runner(tmp_path: Path, closed_at_end: Callable[[Any], Any]) -> Callable[..., WalkRunner]:
    return lambda **kwargs: closed_at_end(WalkRunner(tmp_path, **kwargs))


def test_log_keys_scores_and_videos(make_runner: Callable[..., WalkRunner], tmp_path: Path) -> None:
    runner = make_runner()
    log = runner.run(Policy(constant(1.0, 1.0)))
    assert scores(log) == {
        "train/sim_max_reward_7": 13.0,
        "train/mean_score": 13.0,
        **{f"test/sim_max_reward_{seed}": seed + 6.0 for seed in (100, 101, 102, 103)},
        "test/mean_score": 107.5,
    }
    videos = {key: Path(value._path) for key, value in log.items() if key not in scores(log)}
    assert list(videos) == ["train/sim_video_7", "test/sim_video_100", "test/sim_video_101"]
    assert sorted((tmp_path / "media").iterdir()) == sorted(videos.values())
    for path in videos.values():
        assert len(path.stem) == 8
        assert path.stem.isalnum()
        with av.open(str(path)) as container:
            assert len(list(container.decode(video=0))) == MAX_STEPS


def test_scores_depend_on_seeds_alone(make_runner: Callable[..., WalkRunner]) -> None:
    expected = scores(make_runner().run(Policy()))
    assert len(set(expected.values())) == len(expected) - 1  # train/mean_score is the one train score
    for n_envs in (1, 3, 50):
        torch.manual_seed(n_envs)
        runner = make_runner(n_envs=n_envs)
        assert scores(runner.run(Policy())) == expected
        assert scores(runner.run(Policy())) == expected
    alone = make_runner(episodes=[Episode("test/", 102)])
    assert alone.run(Policy())["test/sim_max_reward_102"] == expected["test/sim_max_reward_102"]
    assert scores(make_runner(sampling_seed=1).run(Policy())) != expected


def test_prefixes_sample_apart(make_runner: Callable[..., WalkRunner]) -> None:
    log = make_runner(episodes=[Episode("train/", 3), Episode("test/", 3)]).run(Policy())
    assert log["train/sim_max_reward_3"] != log["test/sim_max_reward_3"]


def test_global_generators_are_left_alone(make_runner: Callable[..., WalkRunner]) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    make_runner().run(Policy())
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_without_sampling_seed_the_policy_draws_globally(make_runner: Callable[..., WalkRunner]) -> None:
    runner = make_runner(sampling_seed=None)
    logs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        logs.append(scores(runner.run(Policy())))
    assert logs[0] == logs[1] != logs[2]


def test_last_chunk_asks_the_policy_for_its_episodes_only(make_runner: Callable[..., WalkRunner]) -> None:
    policy = Policy(constant(1.0, 1.0))
    make_runner(n_envs=3).run(policy)
    assert [len(seen["obs"]) for seen in policy.seen] == [3, 3, 3, 2, 2, 2]
    assert policy.resets == 2


def test_finished_episodes_stand_still_while_others_run(make_runner: Callable[..., WalkRunner]) -> None:
    log = make_runner(limit=103.5).run(Policy(constant(1.0, 1.0)))
    expected = {"100": 104.0, "101": 104.0, "102": 104.0, "103": 104.0}
    assert {key.split("_")[-1]: log[key] for key in log if "test/sim_max" in key} == expected


def test_observations_are_tensors_of_the_policys_kind(make_runner: Callable[..., WalkRunner]) -> None:
    for dict_obs in (False, True):
        policy = Policy(constant(1.0, 2.0))
        make_runner(dict_obs=dict_obs).run(policy)
        assert policy.seen[1]["obs"].dtype == torch.float32
        assert policy.seen[1]["obs"][0].tolist() == [[1, 8], [2, 10]]


def test_latency_shows_old_observations_and_drops_late_actions(make_runner: Callable[..., WalkRunner]) -> None:
    policy = Policy(constant(9.0, 1.0, 2.0))
    runner = make_runner(n_latency_steps=1, episodes=[Episode("test/", 10)])
    assert runner.run(policy)["test/sim_max_reward_10"] == 19
    times = [seen["obs"][0, :, 0].tolist() for seen in policy.seen]
    assert times == [[0, 0], [0, 1], [2, 3]]


def test_past_actions_are_shown_on_request(make_runner: Callable[..., WalkRunner]) -> None:
    policy = Policy(constant(9.0, 1.0, 2.0))
    make_runner(n_latency_steps=1, past_action=True).run(policy)
    assert "past_action" not in policy.seen[0]
    assert policy.seen[1]["past_action"][0].tolist() == [[2.0]]


def test_init_prepares_the_environment(make_runner: Callable[..., WalkRunner]) -> None:
    def limit_to(limit: float) -> Callable[[gymnasium.Env], None]:
        def init(env: gymnasium.Env) -> None:
            env.unwrapped.limit = limit

        return init

    episodes = [Episode("test/", seed, init=limit_to(seed + 2.5)) for seed in (1, 2, 3)]
    episodes.append(Episode("test/", 10))
    log = make_runner(episodes=episodes, n_envs=4).run(Policy(constant(1.0, 1.0)))
    assert [log[f"test/sim_max_reward_{seed}"] for seed in (1, 2, 3, 10)] == [4, 5, 6, 16]


@pytest.mark.parametrize(("order", "report"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGSTOP, "within 1.5 s")])
def test_dead_or_hanging_environment_ends_the_run_with_its_seed(
    make_runner: Callable[..., WalkRunner], tmp_path: Path, order: int, report: str
) -> None:
    runner = make_runner()
    expected = scores(runner.run(Policy()))
    processes = processes_of(runner)
    runner._envs[0].timeout = 1.5

    def harm(obs_dict: dict[str, Tensor]) -> Tensor:
        os.kill(processes[3].pid, order)
        time.sleep(0.1)
        return constant(1.0, 1.0)(obs_dict)

    with pytest.raises(RuntimeError, match=f"(?s)test episode with seed 102.*{report}"):
        runner.run(Policy(harm))
    assert not any(process.is_alive() for process in processes)
    assert scores(runner.run(Policy())) == expected


def test_environment_that_raises_ends_the_run_with_its_seed(make_runner: Callable[..., WalkRunner]) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)test episode with seed 103.*Traceback.*no such start"):
        make_runner(broken_seed=103, n_envs=2).run(Policy())


def test_action_that_is_not_finite_is_named_and_no_video_stays(
    make_runner: Callable[..., WalkRunner], tmp_path: Path
) -> None:
    partial: list[Path] = []

    def spoil(obs_dict: dict[str, Tensor]) -> Tensor:
        action = constant(1.0, 1.0)(obs_dict)
        if obs_dict["obs"][0, -1, 0] > 150:
            action[2, 1] = float("nan")
            partial.extend((tmp_path / "media").iterdir())
        return action

    with pytest.raises(RuntimeError, match=r"not finite.* in test episode with seed 101\.") as error:
        make_runner(max_steps=200).run(Policy(spoil))
    assert "102" not in str(error.value)
    assert [path.suffixes for path in partial] == [[".part", ".mp4"]] * 3
    assert list((tmp_path / "media").iterdir()) == []


@pytest.mark.parametrize(
    ("action", "report"),
    [
        (torch.zeros(5, 1, 1), "at least one action"),
        (torch.zeros(5, 2), "expected"),
        (torch.zeros(4, 2, 1), r"\(4, 1, 1\)"),
        (torch.zeros(5, 2, 3), "3 entries, the environment's 1"),
    ],
)
def test_action_of_wrong_shape_is_refused(make_runner: Callable[..., WalkRunner], action: Tensor, report: str) -> None:
    with pytest.raises(ValueError, match=report):
        make_runner(n_latency_steps=1).run(Policy(lambda obs_dict: action))


def test_making_a_runner_starts_nothing(make_runner: Callable[..., WalkRunner], tmp_path: Path) -> None:
    runner = make_runner()
    assert runner._envs == []
    assert list(tmp_path.iterdir()) == []


def test_workers_are_kept_between_runs_until_close(make_runner: Callable[..., WalkRunner]) -> None:
    runner = make_runner(n_envs=2)
    runner.run(Policy())
    processes = processes_of(runner)
    runner.run(Policy())
    assert processes_of(runner) == processes
    runner.close()
    assert not any(process.is_alive() for process in processes)


@pytest.mark.parametrize(
    ("arguments", "report"),
    [
        ({"episodes": []}, r"n_train \+ n_test"),
        ({"n_obs_steps": 0}, "n_obs_steps is 0"),
        ({"n_action_steps": 0}, "n_action_steps is 0"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"n_latency_steps": -1}, "n_latency_steps is -1"),
        ({"n_envs": 0}, "n_envs is 0"),
        ({"n_env_groups": 0}, "n_env_groups is 0"),
    ],
)
def test_bad_arguments_are_refused(tmp_path: Path, arguments: dict[str, Any], report: str) -> None:
    with pytest.raises(ValueError, match=report):
        WalkRunner(tmp_path, **arguments)
