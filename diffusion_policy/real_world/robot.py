"""What an arm is to the environment that drives it."""

from typing import Any, Protocol

from numpy.typing import ArrayLike, NDArray


class Robot(Protocol):
    """An arm in a process of its own, such as `RTDEInterpolationController`.

    When commands end, it stays where it was told to go; when whoever gives them dies, it stops.
    """

    @property
    def is_ready(self) -> bool:
        """Whether it takes commands."""

    @property
    def fault(self) -> Exception | None:
        """Why it has stopped though it was not told to: returned, not raised."""

    def start(self, wait: bool = True) -> None:
        """Connects; with `wait` as `start_wait`."""

    def start_wait(self) -> None:
        """Returns when it takes commands, or raises why it does not."""

    def stop(self, wait: bool = True) -> None:
        """Stops the arm and ends its process, in any state."""

    def stop_wait(self) -> None:
        """Returns when the process has ended."""

    def schedule_waypoint(self, pose: ArrayLike, target_time: float) -> None:
        """Goes on to `pose` `(6,)` (m, rotation vector in rad), to be there at `target_time` (wall clock, s).

        Raises:
            ValueError: the target is refused, and the arm holds.
        """

    def hold(self) -> None:
        """Stops the arm as soon as it can, and keeps it there."""

    def get_state(self, k: int | None = None) -> dict[str, NDArray[Any]]:
        """The newest state, or the last `k`, by key, with `robot_receive_timestamp` (s)."""

    def get_all_state(self) -> dict[str, NDArray[Any]]:
        """All states that are kept, oldest first."""
