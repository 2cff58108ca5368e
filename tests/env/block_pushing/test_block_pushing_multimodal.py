import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from fixtures import load_fixture
from gymnasium.utils.env_checker import check_env

from diffusion_policy.env.block_pushing.block_pushing_multimodal import (
    BlockPushEventManager,
    BlockPushHorizontalMultimodal,
)
from diffusion_policy.env.block_pushing.utils.utils_pybullet import ObjState, XarmState

Make = Callable[..., Any]
SEEDS = [0, 1, 2, 100000, 100001]
TOUCHED = {100000: slice(3, 5), 100001: slice(0, 2)}
"""Columns of the block that the tool meets within the recorded steps."""
EFFECTOR = slice(6, 8)


def flat(obs: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate(list(obs.values()))


def play(env: Any, seed: int, n_steps: int = 40) -> np.ndarray:
    """Observations of a tool that runs into the first block, shaking."""
    rng = np.random.default_rng(seed)
    obs, _ = env.reset(seed=seed)
    rows = [flat(obs)]
    for _ in range(n_steps):
        to_block = obs["block_translation"] - obs["effector_translation"]
        obs = env.step(rng.normal(0.03 * to_block / np.linalg.norm(to_block), 0.005))[0]
        rows.append(flat(obs))
    return np.stack(rows)


def put(env: Any, **places: tuple[float, float]) -> None:
    """Puts blocks somewhere at once."""
    for name, (x, y) in places.items():
        body = env.get_obj_ids()[0 if name == "block" else 1]
        env.pybullet_client.resetBasePositionAndOrientation(body, (x, y, 0.02), (0, 0, 0, 1))


@pytest.mark.parametrize("seed", SEEDS)
def test_episodes_begin_and_go_as_in_the_original(make_env: Make, compat: Path, seed: int) -> None:
    fixture = load_fixture(compat, "m_blockpush")
    env = gymnasium.wrappers.FlattenObservation(make_env())
    assert list(env.unwrapped.observation_space) == fixture.meta["obs_space_key_order"]
    obs, info = env.reset(seed=seed)
    assert list(info) == fixture.meta["info_keys"]
    expected = fixture.arrays[f"out/seed{seed}/reset"]
    np.testing.assert_allclose(np.delete(obs, EFFECTOR), np.delete(expected, EFFECTOR), atol=1e-4)
    np.testing.assert_allclose(obs[EFFECTOR], expected[EFFECTOR], atol=2e-3)  # another arm, to within 2 mm

    for i, expected in enumerate(fixture.arrays[f"out/seed{seed}/obs"]):
        action = np.array((0.0, 0.03) if i % 2 == 0 else (0.03, 0.02), dtype=np.float32)
        obs, reward, terminated, truncated, _ = env.step(action)
        assert (reward, terminated, truncated) == (0.0, False, False)
        touched = TOUCHED.get(seed, slice(0, 0))
        np.testing.assert_allclose(obs[touched], expected[touched], atol=0.03)  # other blocks turn otherwise
        block = slice(touched.start, touched.stop + 1) if seed in TOUCHED else touched
        exact = np.ones(16, dtype=bool)
        exact[EFFECTOR] = exact[block] = False
        np.testing.assert_allclose(obs[exact], expected[exact], atol=1e-3)
        np.testing.assert_allclose(obs[EFFECTOR], expected[EFFECTOR], atol=2e-3)


def test_seed_decides_everything_whatever_went_before(make_env: Make) -> None:
    used = make_env()
    first, again = play(used, 0), play(used, 3)
    assert np.abs(first[-1, :2] - first[0, :2]).max() > 0.01  # it was pushed
    np.testing.assert_array_equal(play(used, 0), first)
    np.testing.assert_array_equal(play(make_env(), 3), again)


def test_env_meets_gymnasium(make_env: Make) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*support for the `seed` function")
        check_env(make_env(), skip_render_check=True)


@pytest.mark.parametrize(
    ("first", "second", "events"),
    [("block", "block2", ("TARGET_0_1", "TARGET_1_0")), ("block2", "block", ("TARGET_1_1", "TARGET_0_0"))],
)
def test_each_block_scores_once_on_a_target_of_its_own(
    make_env: Make, first: str, second: str, events: tuple[str, str]
) -> None:
    env = make_env()
    obs, info = env.reset(seed=0)
    assert set(info.values()) == {-1}
    target, target2 = (obs[f"{name}_translation"] for name in ("target", "target2"))
    put(env, **{first: target2 + np.float32(0.03)})
    obs, reward, terminated, _, info = env.step((0, 0))
    assert (reward, terminated, info[events[0]]) == (0.49, False, 1)
    put(env, **{first: target + np.array((0.03, 0.0))})  # it has scored
    assert env.step((0, 0))[1] == 0.0
    put(env, **{second: target2 - np.float32(0.03)})  # that target is taken
    assert env.step((0, 0))[1] == 0.0
    put(env, **{second: target - np.float32(0.03)})
    _, reward, terminated, _, info = env.step((0, 0))
    assert (reward, terminated, env.succeeded) == (0.51, True, True)
    assert {key for key, step in info.items() if key.startswith("TARGET") and step > 0} == set(events)
    assert info[events[1]] == 4
    assert set(env.reset(seed=0)[1].values()) == {-1}


@pytest.mark.parametrize("seed", [79, 200_046])
def test_reset_finds_places_for_both_blocks_always(make_env: Make, seed: int) -> None:
    env = make_env()
    for i in range(3):
        obs, _ = env.reset(seed=seed if i == 0 else None)
        assert abs(obs["block_translation"][0] - obs["block2_translation"][0]) > 0.0999


def test_touch_is_an_event(make_env: Make) -> None:
    env = make_env()
    obs, _ = env.reset(seed=1)
    x, y = obs["block_translation"] - obs["effector_target_translation"]
    env.step((x, y - 0.06))
    for _ in range(5):
        info = env.step((0, 0.02))[4]
    assert info["REACH_0"] > 1
    assert info["REACH_1"] == -1


def test_absolute_and_relative_actions_go_to_the_same_place(make_env: Make) -> None:
    relative, absolute = make_env(), make_env(abs_action=True)
    relative.reset(seed=5)
    absolute.reset(seed=5)
    where = np.array((0.3, -0.4))
    for step in ((0.03, 0.01), (-0.02, 0.02), (0.01, 0.03)):
        where += step
        here, there = relative.step(step)[0], absolute.step(where)[0]
        np.testing.assert_allclose(flat(here), flat(there), atol=1e-6)
        np.testing.assert_allclose(here["effector_translation"], where, atol=0.005)


def test_effector_stays_over_the_table(make_env: Make) -> None:
    env = make_env()
    env.reset(seed=0)
    for _ in range(25):
        obs = env.step((-0.1, -0.1))[0]
    np.testing.assert_allclose(obs["effector_target_translation"], (0.15, -0.5))
    np.testing.assert_allclose(obs["effector_translation"], (0.15, -0.5), atol=0.01)


def test_state_of_the_simulator_is_restored(make_env: Make) -> None:
    env = make_env()
    play(env, 3, 15)
    state, before = env.get_pybullet_state(), flat(env.compute_state())
    states = {key: [item.serialize() for item in items] for key, items in state.items()}
    play(env, 4, 5)
    read = json.loads(json.dumps(states))
    kinds = {"robots": XarmState}
    env.set_pybullet_state(
        {key: [kinds.get(key, ObjState).deserialize(item) for item in items] for key, items in read.items()}
    )
    obs, _ = env.reset(reset_poses=False)
    np.testing.assert_allclose(flat(obs), before, atol=1e-6)
    np.testing.assert_allclose(flat(env.step((0, 0))[0])[[8, 9]], before[[8, 9]], atol=1e-6)


def test_image_shows_blocks_and_targets(make_env: Make) -> None:
    env = make_env(image_size=(120, 160))
    obs, _ = env.reset(seed=3)
    assert obs["rgb"].shape == (120, 160, 3)
    assert env.observation_space.contains(obs)
    frame = env.render().astype(int)
    red, green, blue = frame[..., 0], frame[..., 1], frame[..., 2]
    assert ((red > 100) & (green < 80) & (blue < 80)).sum() > 20  # block
    assert ((green > 80) & (red < 80) & (blue < 110)).sum() > 20  # block2
    assert ((blue > 180) & (red < 140)).sum() > 100  # target
    assert ((red > 180) & (blue < 140)).sum() > 100  # target2


def test_horizontal_variant_turns_the_layout(make_env: Make) -> None:
    obs, _ = make_env(BlockPushHorizontalMultimodal).reset(seed=0)
    between = obs["target_translation"] - obs["target2_translation"]
    assert abs(between[1]) > 0.2 > 0.05 > abs(between[0])
    assert obs["block_translation"][0] < obs["target_translation"][0]


def test_events_keep_their_first_step() -> None:
    events = BlockPushEventManager()
    events.reach(3, 1)
    events.reach(5, 1)
    events.target(7, 1, 0)
    assert events.get_info() == {
        "REACH_0": -1,
        "REACH_1": 3,
        "TARGET_0_0": -1,
        "TARGET_0_1": -1,
        "TARGET_1_0": 7,
        "TARGET_1_1": -1,
    }


@pytest.mark.parametrize("action", [(0.1,), (math.nan, 0.0), (0.0, math.inf), np.zeros((2, 2))])
def test_bad_actions_are_refused(make_env: Make, action: Any) -> None:
    env = make_env()
    with pytest.raises(ValueError, match="expected two finite numbers"):
        env.step(action)


def test_bad_settings_are_refused(make_env: Make) -> None:
    with pytest.raises(ValueError, match="divisor of 240"):
        make_env(control_frequency=7)
    with pytest.raises(ConnectionError, match=r"pybullet_utils\.runServer"):
        make_env(shared_memory=True)
