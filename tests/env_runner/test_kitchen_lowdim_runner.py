"""Rollouts of the kitchen."""

import numpy as np
import pytest
import torch
from runner_log import scores, video_sizes

from diffusion_policy.env_runner.episode import Episode, Rollout
from diffusion_policy.env_runner.kitchen_lowdim_runner import KitchenLowdimRunner

TASKS = ("bottom_burner", "top_burner", "light_switch", "slide_cabinet", "hinge_cabinet", "microwave", "kettle")


class Repeat:
    """Does in all episodes what a demonstration did, with noise of each episode's own."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, actions, noise=0.0):
        self.actions, self.noise = torch.from_numpy(actions).float(), noise

    def reset(self):
        self.step, self.seen = 0, []

    def predict_action(self, obs_dict, generator=None):
        self.seen.append(obs_dict["obs"])
        chunk = self.actions[self.step : self.step + 8]
        self.step += 8
        noise = torch.stack([torch.randn(len(chunk), 9, generator=g) for g in generator])
        return {"action": chunk + self.noise * noise}


@pytest.fixture
def make_runner(tmp_path, kitchen_demos, closed_at_end):
    small = {"n_train": 2, "n_train_vis": 0, "n_test": 2, "n_test_vis": 0, "render_hw": (48, 64), "max_steps": 24}
    return lambda **kwargs: closed_at_end(
        KitchenLowdimRunner(tmp_path, **{"dataset_dir": str(kitchen_demos), **small, **kwargs})
    )


def _demonstration(folder, i):
    length = int(np.load(folder / "existence_mask.npy")[i].sum())
    return np.load(folder / "actions_seq.npy")[i, :length]


def test_a_demonstration_repeated_does_its_task(make_runner, kitchen_demos):
    actions = _demonstration(kitchen_demos, 0)
    runner = make_runner(n_train=1, n_test=1, n_test_vis=1, max_steps=len(actions), robot_noise_ratio=0.0)
    policy = Repeat(actions)
    log = runner.run(policy)
    assert log["train/p_1"] == log["train/p_light_switch"] == 1
    assert log["train/mean_score"] == pytest.approx(1 / 7)
    assert set(scores(log)) == {
        f"{prefix}/{key}"
        for prefix in ("train", "test")
        for key in ("mean_score", *(f"p_{n}" for n in range(1, 8)), *(f"p_{task}" for task in TASKS))
    }
    assert video_sizes(log) == {"test/sim_video_10000": (64, 48, len(actions))}
    # training episodes start where demonstrations do, test episodes in one state
    first = policy.seen[0][:, -1]
    assert first.shape == (2, 60)
    np.testing.assert_allclose(first[0, :9], np.load(kitchen_demos / "all_init_qpos.npy")[0, :9], atol=1e-5)
    assert first[1, 0].item() == pytest.approx(0.148388, abs=1e-5)


def test_results_do_not_depend_on_the_number_of_workers(make_runner, kitchen_demos):
    policy = Repeat(_demonstration(kitchen_demos, 0), noise=0.3)

    def run(runner):
        rollouts = runner.rollouts(policy)
        return [
            (str(rollout.episode), rollout.rewards.tolist(), rollout.infos["completed"][-1].tolist())
            for rollout in rollouts
        ]

    runner = make_runner(n_envs=4)
    log = scores(runner.run(policy))
    assert scores(runner.run(policy)) == log
    several = run(runner)
    last = policy.seen[-1]
    single = make_runner(n_envs=1)
    assert run(single) == several
    assert torch.equal(policy.seen[-1][0], last[-1])  # what the last of the episodes observes at its end
    assert scores(single.run(policy)) == log


def test_absolute_actions_hold_the_robot_where_it_is(make_runner, kitchen_demos):
    start = np.array([[0.148, -1.768, 1.844, -2.477, 0.26, 0.713, 1.595, 0.04, 0.037]])
    policy = Repeat(np.repeat(start, 24, axis=0))
    make_runner(n_train=0, n_test=1, abs_action=True, robot_noise_ratio=0.0).run(policy)
    moved = (policy.seen[-1][0, -1] - policy.seen[0][0, -1])[:7].abs()
    assert moved.max() < 0.1


def test_scores_are_counted_over_tasks():
    def rollout(seed, *tasks):
        completed = np.isin(TASKS, tasks)
        rewards = np.array([0.0, *[1.0] * len(tasks)])
        return Rollout(Episode("test/", seed), rewards, False, {"completed": [completed]}, None)

    metrics = KitchenLowdimRunner.metrics(None, [rollout(1, "kettle", "microwave"), rollout(2, "kettle"), rollout(3)])
    assert metrics["mean_score"] == pytest.approx(3 / 21)
    assert [metrics[f"p_{n}"] for n in (1, 2, 3, 7)] == pytest.approx([2 / 3, 1 / 3, 0, 0])
    assert (metrics["p_kettle"], metrics["p_microwave"], metrics["p_top_burner"]) == pytest.approx((2 / 3, 1 / 3, 0))


def test_missing_initial_states_are_named(tmp_path, make_runner):
    with pytest.raises(FileNotFoundError, match=r"all_init_qpos\.npy, all_init_qvel\.npy.*n_train=0"):
        make_runner(dataset_dir=str(tmp_path))
    make_runner(dataset_dir=str(tmp_path), n_train=0)
    np.save(tmp_path / "all_init_qpos.npy", np.zeros((2, 30)))
    np.save(tmp_path / "all_init_qvel.npy", np.zeros((2, 30)))
    with pytest.raises(ValueError, match=r"all_init_qvel\.npy has shape \(2, 30\), expected \(2, 29\)"):
        make_runner(dataset_dir=str(tmp_path))
