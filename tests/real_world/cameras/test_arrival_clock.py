import numpy as np

from diffusion_policy.real_world.cameras.arrival_clock import ArrivalClock


def times(captured: np.ndarray, received: np.ndarray) -> np.ndarray:
    clock = ArrivalClock()
    return np.array(
        [
            clock.time_of({"camera_capture_timestamp": c, "camera_receive_timestamp": r})
            for c, r in zip(captured, received, strict=True)
        ]
    )


def test_frames_that_were_held_up_are_even_again() -> None:
    rng = np.random.default_rng(0)
    due = 1.7e9 + np.arange(600) / 30
    received = due + 0.02 + rng.exponential(0.002, 600)
    received[300:305] = received[304] + 0.001 * np.arange(5)  # five at once
    for offset, drift in ((0, 0), (-1.6e9, 0), (5, 1e-4)):  # clocks of other times, and one that is too slow
        captured = (due - due[0]) * (1 - drift) + due[0] + offset
        result = times(captured, received)
        assert np.abs(result - (due + 0.02))[100:].max() < 0.004
        assert (result <= received + 1e-5).all()


def test_a_clock_that_is_set_anew_is_believed() -> None:
    """As in a recording that is played again."""
    received = 1.7e9 + np.arange(60) / 30
    captured = 100 + np.arange(60) % 30 / 30
    assert np.allclose(times(captured, received), received, atol=1e-3)


def test_without_times_of_its_own_a_camera_has_those_of_receipt() -> None:
    received = 1.7e9 + np.cumsum(np.random.default_rng(0).uniform(0.01, 0.06, 50))
    assert np.allclose(times(received, received), received)
