"""The control script that ur_rtde uploads, as far as its client can tell."""

import logging
import re

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy.real_world.sim.ur_arm import Motion
from diffusion_policy.real_world.sim.ur_commands import COMMANDS, STOP_SCRIPT, STREAMING, Robot, ScriptError

logger = logging.getLogger(__name__)

_REGISTER_OFFSET = re.compile(r"reg_offset_int\s*=\s*(?:#[^\n]*\n)?\s*(\d+)")
_READY, _DONE = 1, 2


class ControlProgram:
    """Reads a command and its parameters from input registers in every cycle, and answers in output registers.

    A command that is not streamed is carried out once; the answer DONE stands until the client clears the register.

    Args:
        script: as uploaded; says which registers it uses.
        robot: to command.
    """

    def __init__(self, script: str, robot: Robot) -> None:
        self.robot = robot
        self.watchdog_frequency = 0.0
        offset = _REGISTER_OFFSET.search(script)
        self._offset = int(offset[1]) if offset else 0
        self._executing = False
        self._blocked = False
        self._asynchronous = False
        self._n_progress_writes = self._n_operations = 0
        self._write_progress(running=False)
        self._answer_status(_READY)

    @property
    def command_register(self) -> str:
        """The input whose packages the watchdog waits for."""
        return f"input_int_register_{self._offset}"

    def integer(self, index: int) -> int:
        return int(self.robot.inputs.get(f"input_int_register_{index + self._offset}", 0))

    def double(self, index: int) -> float:
        return float(self.robot.inputs.get(f"input_double_register_{index + self._offset}", 0.0))

    def doubles(self, first: int, n: int) -> NDArray[np.float64]:
        return np.array([self.double(first + i) for i in range(n)])

    def answer(self, values: ArrayLike) -> None:
        for i, value in enumerate(np.asarray(values).tolist()):
            self.robot.outputs[f"output_double_register_{i + self._offset}"] = value

    def answer_integer(self, value: int, index: int = 1) -> None:
        self.robot.outputs[f"output_int_register_{index + self._offset}"] = value

    def start_motion(self, motion: Motion, asynchronous: bool) -> None:
        """Moves; unless `asynchronous` the command is done when the motion is."""
        if self._asynchronous:
            self._write_progress(running=False)  # of the motion that this one replaces
        self.robot.arm.motion = motion
        self._asynchronous, self._blocked = asynchronous, not asynchronous
        if asynchronous:
            self._write_progress(running=True)

    def cycle(self, motion_ended: bool) -> bool:
        """One cycle of the controller; False when the program has ended."""
        if motion_ended and self._asynchronous:
            self._write_progress(running=False)
            self._asynchronous = False
        if self._blocked:
            self._blocked = not motion_ended
            if motion_ended:
                self._answer_status(_DONE)
            return True
        command = self.integer(0)
        try:
            return self._carry_out(command)
        except ScriptError as error:
            logger.warning("The program ended at command %d: %s.", command, error)
            return False

    def _carry_out(self, command: int) -> bool:
        if command == STOP_SCRIPT:
            return False
        if command == 0:
            self._executing = False
            self._answer_status(_READY)
        elif command in STREAMING:
            self._process(command)
            self._answer_status(_READY)
        else:
            if not self._executing:
                self._executing = True
                self._process(command)
            if not self._blocked:
                self._answer_status(_DONE)
        return True

    def _process(self, command: int) -> None:
        if command in COMMANDS:
            COMMANDS[command](self)
        else:
            logger.info("Command %d does nothing here.", command)

    def _answer_status(self, status: int) -> None:
        self.answer_integer(status, index=0)

    def _write_progress(self, running: bool) -> None:
        """Bit 15: an asynchronous motion is under way; above it counts of writes and of motions begun."""
        self._n_progress_writes = (self._n_progress_writes + 1) % 128
        self._n_operations = (self._n_operations + running) % 128
        word = self._n_progress_writes << 16 | self._n_operations << 24 | running << 15
        self.answer_integer(word, index=2)
