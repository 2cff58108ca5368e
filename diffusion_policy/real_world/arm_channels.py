"""What passes between the arm's process and the one that gives commands."""

import time
from collections.abc import Sequence
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike

from diffusion_policy.real_world.robot_fault import FaultReport
from diffusion_policy.real_world.ur_connection import state_example
from diffusion_policy.shared_memory.shared_memory_queue import SharedMemoryQueue
from diffusion_policy.shared_memory.shared_memory_ring_buffer import SharedMemoryRingBuffer
from diffusion_policy.shared_memory.shared_memory_util import SharedAtomicCounter


class Command(Enum):
    """What the arm's process can be told; STOP goes by `ArmChannels.stop_requested`, which no queue delays."""

    STOP = 0
    SERVOL = 1
    SCHEDULE_WAYPOINT = 2
    HOLD = 3
    RECOVER = 4


class ArmChannels:
    """Commands one way; states, faults and counts the other.

    Args:
        receive_keys: entries of a state.
        frequency: of states (Hz).
        get_max_k: most states that can be read at once.
    """

    def __init__(self, receive_keys: Sequence[str], frequency: float, get_max_k: int) -> None:
        command = {"cmd": 0, "target_pose": np.zeros(6), "duration": 0.0, "target_time": 0.0}
        self.commands = SharedMemoryQueue.create_from_examples(None, command, buffer_size=256)
        self.states = SharedMemoryRingBuffer.create_from_examples(
            None,
            {**state_example(receive_keys), "robot_receive_timestamp": 0.0},
            get_max_k=get_max_k,
            get_time_budget=0.2,
            put_desired_frequency=frequency,
            get_attempts=3,
        )
        self.report = FaultReport()
        self.stop_requested = SharedAtomicCounter(None)
        self.last_cycle = SharedAtomicCounter(None)
        self.n_recoveries = SharedAtomicCounter(None)

    def begin_cycle(self) -> None:
        """Tells that the arm's process lives."""
        self.last_cycle.store(time.monotonic_ns())

    def seconds_since_cycle(self) -> float | None:
        """None until the first cycle."""
        last = self.last_cycle.load()
        return (time.monotonic_ns() - last) / 1e9 if last else None

    def put(self, command: Command, target_pose: ArrayLike = (0.0,) * 6, **when: float) -> None:
        """Sends a command; `when` is `duration` (s) or `target_time` (wall clock, s), as it needs.

        Raises:
            Full: the arm's process takes none.
        """
        item = {"cmd": command.value, "target_pose": target_pose, "duration": 0.0, "target_time": 0.0}
        self.commands.put(item | when)
