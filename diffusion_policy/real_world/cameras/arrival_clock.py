"""When frames would have come if nothing had held them up."""

from diffusion_policy.real_world.cameras.frame_source import Frame

LONGEST_DELAY = 0.5  # s; beyond, the camera's clock was set anew
FORGETTING = 1e-3  # a frame, of how quick the quickest frame was: the camera's clock may be slower than the computer's


class ArrivalClock:
    """The camera's own clock, which is even, set so that the quickest frames came when they were received.

    A busy computer receives frames late and several at a time, which their times of capture do not show.
    """

    def __init__(self) -> None:
        self._quickest: float | None = None

    def time_of(self, frame: Frame) -> float:
        """Wall-clock time (s), at most that at which `frame` was received; frames are given in order."""
        captured, received = frame["camera_capture_timestamp"], frame["camera_receive_timestamp"]
        delay = received - captured
        if self._quickest is None or not 0 <= delay - self._quickest < LONGEST_DELAY:
            self._quickest = delay
        self._quickest += FORGETTING * (delay - self._quickest)
        return float(captured + self._quickest)
