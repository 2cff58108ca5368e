"""Why the arm stopped, from the process that drives it to the one that gives commands."""

from enum import IntEnum
from typing import Any

import numpy as np

from diffusion_policy.shared_memory.shared_memory_util import SharedAtomicCounter
from diffusion_policy.shared_memory.shared_ndarray import SharedNDArray


class FaultKind(IntEnum):
    """What happened to the arm or to the process that drives it."""

    NO_CONNECTION = 1
    DISCONNECTED = 2
    FROZEN = 3
    PROTECTIVE_STOP = 4
    EMERGENCY_STOP = 5
    PROGRAM_STOPPED = 6
    PARENT_DIED = 7
    INTERRUPTED = 8
    PROCESS_DIED = 9
    PROCESS_HANGS = 10


RECOVERABLE = {FaultKind.PROTECTIVE_STOP, FaultKind.PROGRAM_STOPPED}

_ANEW = "then make a new controller"
_MESSAGES = {
    FaultKind.NO_CONNECTION: (
        "No connection to the robot",
        "Check address and cable, and that the robot is on, its brakes are released and it is in remote control",
    ),
    FaultKind.DISCONNECTED: (
        "The connection to the robot is lost; the watchdog of its program stops the arm",
        f"Check cable and robot, {_ANEW}",
    ),
    FaultKind.FROZEN: (
        "The robot sends no new states; the watchdog of its program stops the arm",
        f"Check cable and robot, {_ANEW}",
    ),
    FaultKind.PROTECTIVE_STOP: (
        "The robot made a protective stop",
        "Look what the arm hit and make room, then call recover() or make a new controller",
    ),
    FaultKind.EMERGENCY_STOP: (
        "The robot's emergency stop is pressed, or its safety system has tripped",
        f"Release it and start the robot at its teach pendant, {_ANEW}",
    ),
    FaultKind.PROGRAM_STOPPED: (
        "The program on the robot has ended, and the arm has stopped",
        "Poses out of reach end it, as does the teach pendant's stop button; call recover() or make a new controller",
    ),
    FaultKind.PARENT_DIED: ("The process that gave commands has died, and the arm was stopped", "Start it anew"),
    FaultKind.INTERRUPTED: ("The arm's process was told to end, and the arm was stopped", "Make a new controller"),
    FaultKind.PROCESS_DIED: (
        "The arm's process has died; the watchdog of the robot's program stops the arm",
        "Make a new controller",
    ),
    FaultKind.PROCESS_HANGS: (
        "The arm's process hangs; the watchdog of the robot's program stops the arm",
        "Look whether the machine is overloaded, then make a new controller",
    ),
}


class RobotFaultError(RuntimeError):
    """The arm has stopped and takes no commands. `kind` says why, `detail` what else is known."""

    def __init__(self, kind: FaultKind, detail: str = "") -> None:
        self.kind = kind
        self.detail = detail
        what, to_do = _MESSAGES[kind]
        super().__init__(f"{what}{f' ({detail})' if detail else ''}. {to_do}.")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.kind, self.detail)


class FaultReport:
    """Where the arm's process writes its fault; the others read."""

    def __init__(self) -> None:
        self._kind = SharedAtomicCounter(None)
        self._detail: SharedNDArray[np.str_] = SharedNDArray.create_from_shape(None, (1,), "U500")

    def write(self, kind: FaultKind, detail: str = "") -> None:
        self._detail.get()[0] = detail
        self._kind.store(kind)

    def clear(self) -> None:
        self._kind.store(0)

    def read(self) -> RobotFaultError | None:
        kind = self._kind.load()
        return RobotFaultError(FaultKind(kind), str(self._detail.get()[0])) if kind else None
