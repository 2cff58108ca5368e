"""The SpaceMouse, read by a process of its own."""

import multiprocessing as mp
import time
from contextlib import closing
from multiprocessing.managers import SharedMemoryManager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy.real_world import child_process
from diffusion_policy.real_world.device_status import DeviceStatus
from diffusion_policy.real_world.real_time import run_in_real_time
from diffusion_policy.real_world.spacemouse_reader import SpaceMouseReader
from diffusion_policy.real_world.start_stop import StartStop
from diffusion_policy.real_world.teleop_device import MotionScale, TeleopError, z_up
from diffusion_policy.shared_memory.shared_memory_ring_buffer import SharedMemoryRingBuffer
from diffusion_policy.shared_memory.shared_ndarray import SharedNDArray

START_TIMEOUT = 10.0  # s
STOP_TIMEOUT = 2.0  # s
SILENCE = 0.5  # s without a reading
PRIORITY = 10  # in real time, where that is allowed


class Spacemouse(StartStop, mp.Process):
    """A `TeleopDevice`: the 3Dconnexion device that spacenavd reads. Nothing that this process does delays it.

    Args:
        shm_manager: not needed; may be None.
        get_max_k: most readings that the ring buffer gives at once.
        frequency: of readings (Hz).
        max_value: 500 for wired models, 300 for wireless ones: a motion of this is 1.
        deadzone: motion (6,), or of every axis, that counts as none.
        dtype: of the motion.
        n_buttons: that the device has.
    """

    def __init__(
        self,
        shm_manager: SharedMemoryManager | None,
        get_max_k: int = 30,
        frequency: float = 200,
        max_value: float = 500,
        deadzone: ArrayLike = (0, 0, 0, 0, 0, 0),
        dtype: type[np.floating] = np.float32,
        n_buttons: int = 2,
    ) -> None:
        super().__init__(name="spacemouse", daemon=True)
        self.frequency = frequency
        self._scale = MotionScale(max_value, deadzone, dtype)
        self._n_buttons = n_buttons
        example = {
            "motion_event": np.zeros(7, np.int64),  # x, y, z, rx, ry, rz, ms since the motion before
            "button_state": np.zeros(n_buttons, bool),
            "receive_timestamp": 0.0,  # s
            "fault": np.zeros((), "U300"),
        }
        self.ring_buffer = SharedMemoryRingBuffer.create_from_examples(
            shm_manager, example, get_max_k, get_time_budget=1.0, put_desired_frequency=frequency
        )
        self._status = DeviceStatus()
        self._stopping = SharedNDArray[np.bool_].create_from_shape(None, (1,), np.bool_)

    def start(self, wait: bool = True) -> None:
        """Starts reading; `wait` for the first reading."""
        super().start()
        end = time.monotonic() + START_TIMEOUT
        while wait and self.ring_buffer.count == 0:
            if not self.is_alive() or time.monotonic() > end:
                raise self.fault or TeleopError(f"The SpaceMouse was not read for {START_TIMEOUT} s.")
            time.sleep(0.002)

    def stop(self, wait: bool = True) -> None:
        """Ends the process."""
        self._stopping.get()[0] = True
        if wait:
            child_process.end(self, STOP_TIMEOUT)

    # ---- readings

    @property
    def fault(self) -> TeleopError | None:
        """What is wrong with device, daemon or process: returned, not raised. The motion is then zero."""
        if (problem := self._status.problem(self, SILENCE)) is not None:
            return TeleopError(f"The SpaceMouse {problem}")
        text = str(self.ring_buffer.get()["fault"]) if self.ring_buffer.count else ""
        return TeleopError(text) if text else None

    def _reading(self) -> dict[str, NDArray[Any]] | None:
        """The latest reading; None if there is none, or none of late."""
        return self.ring_buffer.get() if self._status.problem(self, SILENCE) is None else None

    def get_motion_state(self) -> NDArray[np.floating]:
        """Motion (6,) in libspnav's frame: x right, y up, z away from the user."""
        reading = self._reading()
        return self._scale(np.zeros(6) if reading is None else reading["motion_event"][:6])

    def get_motion_state_transformed(self) -> NDArray[np.floating]:
        """Motion (6,) in the frame of a robot that faces the user: x towards the user, y right, z up."""
        return z_up(self.get_motion_state())

    def get_button_state(self) -> NDArray[np.bool_]:
        """Which of the buttons (n_buttons,) are held down."""
        reading = self._reading()
        return np.zeros(self._n_buttons, bool) if reading is None else reading["button_state"]

    def is_button_pressed(self, button_id: int) -> bool:
        """Whether button 0 (left), 1 (right), ... is held down."""
        return bool(self.get_button_state()[button_id])

    # ---- in the device's process

    def run(self) -> None:
        """The process's work."""
        child_process.attach_to_parent()
        run_in_real_time(PRIORITY)
        try:
            with closing(SpaceMouseReader(self._n_buttons)) as reader:
                while not self._stopping.get()[0]:
                    self._put(reader)
                    time.sleep(1 / self.frequency)
        except Exception as error:
            self._status.fail(str(error))
            raise

    def _put(self, reader: SpaceMouseReader) -> None:
        reader.update()
        self.ring_buffer.put(
            {
                "motion_event": np.append(reader.motion, reader.period),
                "button_state": reader.buttons,
                "receive_timestamp": time.time(),
                "fault": np.array(reader.fault or "", "U300"),
            }
        )
        self._status.beat(time.monotonic())
