import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusion_policy.common.timestamp_accumulator import (
    TimestampActionAccumulator,
    TimestampObsAccumulator,
    align_timestamps,
    get_accumulate_timestamp_idxs,
)


@pytest.fixture(scope="module")
def facts(compat: Path) -> dict[str, Any]:
    return json.loads((compat / "numerics" / "l_timestamps.json").read_text())


@pytest.mark.parametrize("function", [get_accumulate_timestamp_idxs, align_timestamps])
def test_indices_equal_the_originals(facts: dict[str, Any], function: Any) -> None:
    cases = facts[function.__name__]
    assert cases
    for case in cases:
        arguments = {key: value for key, value in case.items() if key != "returns"}
        returned = function(**arguments)
        assert list(returned) == case["returns"], arguments


def test_observations_equal_the_originals(facts: dict[str, Any]) -> None:
    fact = facts["TimestampObsAccumulator"]
    accumulator = TimestampObsAccumulator(fact["start_time"], fact["dt"])
    for step in fact["log"]:
        times = np.array(step["put_timestamps"])
        accumulator.put({"x": np.stack([times, 2 * times], axis=1)}, times)
        assert len(accumulator) == step["len"]
        np.testing.assert_allclose(accumulator.data["x"], step["data_x"])
        np.testing.assert_allclose(accumulator.actual_timestamps, step["actual_timestamps"])
        np.testing.assert_allclose(accumulator.timestamps, step["timestamps"])


def test_actions_equal_the_originals(facts: dict[str, Any]) -> None:
    fact = facts["TimestampActionAccumulator"]
    accumulator = TimestampActionAccumulator(fact["start_time"], fact["dt"])
    for step in fact["log"]:
        accumulator.put(np.array(step["actions"]), np.array(step["put_timestamps"]))
        assert len(accumulator) == step["len"]
        np.testing.assert_allclose(accumulator.actions, step["result_actions"])
        np.testing.assert_allclose(accumulator.actual_timestamps, step["actual_timestamps"])
        np.testing.assert_allclose(accumulator.timestamps, step["timestamps"])


def test_align_says_what_is_missing() -> None:
    """The original stops in a debugger."""
    with pytest.raises(ValueError, match=r"steps 3 to 4 from 0\.3000 s on"):
        align_timestamps([0.0, 0.1], [3, 4], start_time=0.0, dt=0.1)
    with pytest.raises(ValueError, match="are none"):
        align_timestamps([], [0], start_time=0.0, dt=0.1)
    assert align_timestamps([], [], start_time=0.0, dt=0.1) == []


def test_steps_that_no_action_was_sent_for_get_the_next_one() -> None:
    accumulator = TimestampActionAccumulator(0.0, 0.1)
    accumulator.put(np.array([[1.0]]), np.array([0.2]))
    assert accumulator.actions.tolist() == [[1.0]] * 3
    accumulator.put(np.array([[2.0]]), np.array([0.5]))
    assert accumulator.actions.ravel().tolist() == [1, 1, 1, 2, 2, 2]


def test_observations_are_copies() -> None:
    accumulator = TimestampObsAccumulator(0.0, 0.1)
    reused = np.zeros((1, 2))
    accumulator.put({"x": reused}, np.array([0.0]))
    reused[:] = 9
    assert accumulator.data["x"].tolist() == [[0, 0]]


def test_what_does_not_fit_is_refused_whole() -> None:
    obs = TimestampObsAccumulator(0.0, 0.1)
    obs.put({"x": np.zeros((1, 2))}, np.array([0.0]))
    with pytest.raises(ValueError, match="keys"):
        obs.put({"y": np.zeros((1, 2))}, np.array([0.1]))
    with pytest.raises(ValueError, match="2 timestamps"):
        obs.put({"x": np.zeros((1, 2))}, np.array([0.1, 0.2]))
    actions = TimestampActionAccumulator(0.0, 0.1)
    with pytest.raises(ValueError, match="1 timestamps"):
        actions.put(np.zeros((2, 2)), np.array([0.1]))
    assert (len(obs), len(actions)) == (1, 0)
