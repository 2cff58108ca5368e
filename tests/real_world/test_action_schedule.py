import numpy as np
import pytest

from diffusion_policy.real_world.action_schedule import ActionSchedule
from diffusion_policy.real_world.inference_thread import Answer
from diffusion_policy.real_world.robot_policy import ControlSettings

REST = np.array([0.4, 0.1, 0.05, 3.1, 0.1, 0])
START, DT = 1.7e9, 0.1


def _schedule(**kwargs: object) -> ActionSchedule:
    return ActionSchedule(REST, START, DT, ControlSettings(6, **kwargs))


def _answer(actions: object, obs_time: float = START) -> Answer:
    return Answer(np.array(actions, float), obs_time, latency=0.05)


def test_actions_are_due_from_the_observation_on() -> None:
    actions = [[0.4 + i / 100, 0.0] for i in range(5)]
    poses, times, n_late = _schedule()(_answer(actions), REST, now=START + 0.15)
    np.testing.assert_allclose(times, START + np.array([0.2, 0.3, 0.4]))
    np.testing.assert_allclose(poses[:, 0], [0.42, 0.43, 0.44])
    np.testing.assert_allclose(poses[:, 2:], np.tile(REST[2:], (3, 1)))
    assert n_late == 2
    _, times, _ = _schedule(action_offset=1)(_answer(actions), REST, now=START + 0.15)
    np.testing.assert_allclose(times, START + np.array([0.2, 0.3, 0.4, 0.5]))


def test_an_action_needs_10_ms_to_be_executed() -> None:
    actions = [[0.4, 0.0]] * 4
    assert _schedule()(_answer(actions), REST, now=START + 0.189).n_late == 2
    assert _schedule()(_answer(actions), REST, now=START + 0.191).n_late == 3


def test_if_all_are_late_the_last_is_executed_at_the_next_step() -> None:
    poses, times, n_late = _schedule()(_answer([[0.3, 0], [0.5, 0]]), REST, now=START + 1.23)
    np.testing.assert_allclose(poses[:, 0], [0.5])
    np.testing.assert_allclose(times, [START + 1.3])
    assert n_late == 1


def test_x_and_y_are_kept_in_bounds() -> None:
    poses = _schedule()(_answer([[0.0, -2.0], [2.0, 2.0]]), REST, now=START - 1).poses
    np.testing.assert_allclose(poses[:, :2], [[0.25, -0.45], [0.77, 0.40]])
    whole = [[0.0, 0.0, 0.2, 3.0, 0.0, 0.1]]
    np.testing.assert_allclose(_schedule()(_answer(whole), REST, now=START - 1).poses, [[0.25, 0, 0.2, 3, 0, 0.1]])


def test_changes_add_up_from_where_the_tool_was() -> None:
    schedule = _schedule(delta_action=True)
    seen = np.array([0.5, 0.0, 0.2, 0, 0, 0])
    np.testing.assert_allclose(schedule(_answer([[0.01, 0.02]]), seen, START - 1).poses[0, :2], [0.51, 0.02])
    np.testing.assert_allclose(schedule(_answer([[0.01, 0.02]]), REST, START - 1).poses[0, :2], [0.52, 0.04])
    with pytest.raises(ValueError, match="one at a time"):
        schedule(_answer([[0.01, 0.02]] * 2), seen, START - 1)


@pytest.mark.parametrize(
    ("actions", "message"),
    [([[0.4, np.nan]], "NaN"), ([[0.4, 0.1, 0.2]], r"actions are \(1, 3\)"), (np.zeros((0, 2)), r"\(0, 2\)")],
)
def test_rubbish_is_refused(actions: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _schedule()(_answer(actions), REST, START)
