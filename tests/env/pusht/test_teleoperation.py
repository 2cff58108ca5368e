import runpy

import numpy as np
import pygame
import pytest
from click.testing import CliRunner

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.env.pusht.pusht_keypoints_env import PushTKeypointsEnv
from diffusion_policy.env.pusht.teleoperation import collect_demonstrations

FAST = 100_000  # Hz


def post_motion(position):
    pygame.event.post(pygame.event.Event(pygame.MOUSEMOTION, pos=position, rel=(0, 0), buttons=(0, 0, 0)))


class RepeatedDemonstration(PushTKeypointsEnv):
    """An env at whose window a hand repeats published actions: each image shown is answered by events of the mouse.

    `keys` has the key to press in answer to the i-th image.
    """

    def __init__(self, actions, keys=()):
        super().__init__(legacy=True, render_action=False)
        self.actions = actions
        self.keys = dict(keys)
        self.n_shown = 0
        self.captions = []

    def reset(self, **kwargs):
        self.pending = iter(self.actions)
        return super().reset(**kwargs)

    def render(self, mode="rgb_array"):
        image = super().render(mode)
        position = next(self.pending, None)
        if position is not None:
            post_motion(position)
        key = self.keys.get(self.n_shown)
        if key is not None:
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))
        if key == pygame.K_SPACE:
            self.wander_and_release(position)
        self.captions.append(pygame.display.get_caption()[0])
        self.n_shown += 1
        return image

    def wander_and_release(self, position):
        """Moves the mouse away, 50 ms later back, and 150 ms later lets the space bar go."""
        post_motion((0, 0))
        back = pygame.event.Event(pygame.MOUSEMOTION, pos=position, rel=(0, 0), buttons=(0, 0, 0))
        pygame.time.set_timer(back, 50, loops=1)
        pygame.time.set_timer(pygame.event.Event(pygame.KEYUP, key=pygame.K_SPACE), 150, loops=1)


@pytest.fixture
def episode(demonstrations):
    """Actions, states and images of the first demonstration: seed 0, 161 steps until 0.88 of the goal are covered."""
    start, end = demonstrations.bounds[0]
    recorded = {key: demonstrations.data[key][start:end] for key in ("action", "state", "keypoint", "n_contacts")}
    return recorded | {"img": demonstrations.images[start:end]}


def collect(env, path):
    """The buffer at `path` after `env`'s hand has quit."""
    env.success_threshold = 0.88
    collect_demonstrations(env, ReplayBuffer.create_from_path(path, mode="a"), FAST)
    assert env.window is None
    return ReplayBuffer.create_from_path(path)


def test_recorded_as_published(tmp_path, episode):
    n_steps = len(episode["action"])
    env = RepeatedDemonstration(episode["action"], {n_steps + 1: pygame.K_q})
    buffer = collect(env, tmp_path / "demo.zarr")
    assert buffer.n_episodes == 1
    assert buffer.n_steps == n_steps
    recorded = buffer.get_episode(0)
    for key, expected in episode.items():
        assert recorded[key].shape == expected.shape
        assert recorded[key].dtype == expected.dtype
    np.testing.assert_array_equal(recorded["action"], episode["action"])
    np.testing.assert_allclose(recorded["state"], episode["state"], atol=4e-5)
    assert np.abs(recorded["img"] - episode["img"]).max() <= 1
    # The published ones show the block as a contact has pushed it on, see the keypoints env's test.
    assert np.median(np.abs(recorded["keypoint"] - episode["keypoint"])) < 1e-4
    assert np.mean(recorded["n_contacts"] == episode["n_contacts"]) > 0.9


def test_retry_discards_what_was_done(tmp_path, episode):
    n_steps = len(episode["action"])
    keys = {30: pygame.K_r, 31 + n_steps + 1: pygame.K_q}
    buffer = collect(RepeatedDemonstration(episode["action"], keys), tmp_path / "demo.zarr")
    assert buffer.n_episodes == 1
    np.testing.assert_array_equal(buffer["action"][:], episode["action"])


def test_unfinished_episode_is_not_kept(tmp_path, episode):
    buffer = collect(RepeatedDemonstration(episode["action"], {30: pygame.K_q}), tmp_path / "demo.zarr")
    assert buffer.n_episodes == 0


def test_closing_the_window_quits(tmp_path, episode):
    env = RepeatedDemonstration(episode["action"])
    pygame.display.init()
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    assert collect(env, tmp_path / "demo.zarr").n_episodes == 0
    assert env.n_shown == 1


def test_next_episode_starts_from_its_index(tmp_path, episode):
    """Also when the folder has episodes already."""
    n_steps = len(episode["action"])
    collect(RepeatedDemonstration(episode["action"], {n_steps + 1: pygame.K_q}), tmp_path / "demo.zarr")
    second = RepeatedDemonstration([], {0: pygame.K_q})
    assert collect(second, tmp_path / "demo.zarr").n_episodes == 1
    expected, _ = PushTKeypointsEnv(legacy=True).reset(seed=1)
    np.testing.assert_array_equal(second._get_obs(), expected)


def test_space_pauses(tmp_path, episode):
    """What the mouse does meanwhile is no action, and the next part of the plan begins."""
    n_steps = len(episode["action"])
    env = RepeatedDemonstration(episode["action"], {40: pygame.K_SPACE, n_steps + 1: pygame.K_q})
    buffer = collect(env, tmp_path / "demo.zarr")
    np.testing.assert_array_equal(buffer["action"][:], episode["action"])
    assert env.captions[40] == "episode 0, plan_idx 0"
    assert env.captions[41] == "episode 0, plan_idx 1"


def test_command(tmp_path, repository):
    """With a window that is closed at once."""
    main = runpy.run_path(str(repository / "demo_pusht.py"))["main"]
    pygame.display.init()
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    path = tmp_path / "demo.zarr"
    done = CliRunner().invoke(main, ["-o", str(path), "-rs", "48", "-hz", "20"])
    assert done.exit_code == 0, done.output
    assert done.output == f"0 episodes in {path}\n"


def test_command_refuses_what_is_no_dataset(tmp_path, repository):
    main = runpy.run_path(str(repository / "demo_pusht.py"))["main"]
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    done = CliRunner().invoke(main, ["-o", str(path)])
    assert done.exit_code == 1
    assert "Error: " in done.output
    assert str(path) in done.output
    assert path.read_text() == "mine"
