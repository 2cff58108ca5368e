"""The process of the simulated robot: a clock, the robot, its server, and a back door for tests."""

import gc
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.common.precise_sleep import precise_wait
from diffusion_policy.real_world.parent_watch import die_with_parent
from diffusion_policy.real_world.real_time import run_in_real_time
from diffusion_policy.real_world.sim.ur_kinematics import matrix_to_pose
from diffusion_policy.real_world.sim.ur_robot import UrRobot
from diffusion_policy.real_world.sim.ur_server import UrServer

logger = logging.getLogger(__name__)

OnTick = Callable[[float, NDArray[np.float64]], None]

_PRIORITY = 30  # before the processes that command it
_MOST_TICKS_AT_ONCE = 10  # to catch up, when the machine was busy
_LEFT_TO_OTHERS = 0.002  # s, when the machine is too slow


@dataclass(frozen=True)
class UrSimulation:
    """See `SimulatedUR`."""

    host: str | None
    e_series: bool
    servo_time_constant: float | None
    initial_joints: Sequence[float]
    on_tick: OnTick | None
    unlock_delay: float
    observer_lag: int


def serve(simulation: UrSimulation, pipe: Connection) -> None:
    """Sends the address once the ports are open, or the error; then answers requests: names of methods, arguments."""
    die_with_parent()
    gc.freeze()  # a search for garbage in all that the parent has loaded takes longer than a tick
    run_in_real_time(_PRIORITY)
    try:
        controller = _Controller(simulation)
    except OSError as error:
        pipe.send(error)
        return
    pipe.send(controller.host)
    for target in (controller.server.serve_forever, controller.tick_forever):
        threading.Thread(target=_end_process_with, args=(target,), daemon=True).start()
    while True:
        name, *arguments = pipe.recv()
        pipe.send(getattr(controller, name)(*arguments))


def _end_process_with(target: Callable[[], None]) -> None:
    try:
        target()
    except Exception:
        logger.exception("The simulated robot failed.")
    os._exit(1)


class _Controller:
    def __init__(self, simulation: UrSimulation) -> None:
        joints = np.array(simulation.initial_joints, float)
        self._robot = UrRobot(simulation.e_series, joints, simulation.servo_time_constant, simulation.unlock_delay)
        self._on_tick = simulation.on_tick
        self._lock = threading.Lock()
        self._now = time.monotonic()
        self.host, self.server = self._open(simulation.host, simulation.observer_lag)

    def _open(self, host: str | None, observer_lag: int) -> tuple[str, UrServer]:
        hosts = [host] if host else [f"127.0.0.{n}" for n in random.sample(range(2, 255), 253)]
        for candidate in hosts:
            try:
                return candidate, UrServer(self._robot, candidate, self._lock, observer_lag)
            except OSError as error:
                last_error = error
        raise OSError(
            f"No port of a UR robot could be opened on {host or 'any of 127.0.0.2 to 127.0.0.254'}: {last_error}"
        )

    def tick_forever(self) -> None:
        n_ticks, due, dt = 0, time.monotonic(), self._robot.dt
        while True:
            n_ticks, due = n_ticks + 1, due + dt
            if due < (earliest := time.monotonic() - _MOST_TICKS_AT_ONCE * dt):
                due = earliest
                time.sleep(_LEFT_TO_OTHERS)
            precise_wait(due, slack_time=0)
            with self._lock:
                self._robot.tick()
                self._now = time.monotonic()
                self.server.send_states(n_ticks, self._robot.states())
                pose = self._robot.pose
            if self._on_tick is not None:
                self._on_tick(self._now, pose)

    def protective_stop(self) -> None:
        with self._lock:
            self._robot.protective_stop()

    def emergency_stop(self) -> None:
        with self._lock:
            self._robot.emergency_stop()

    def stop_program(self) -> None:
        with self._lock:
            self._robot.stop_program()

    def drop_connections(self, refuse: bool) -> None:
        with self._lock:
            self.server.drop_connections(refuse)

    def freeze(self) -> None:
        self.server.is_frozen = True

    def unfreeze(self) -> None:
        self.server.is_frozen = False

    def state(self) -> dict[str, Any]:
        with self._lock:
            robot = self._robot
            return {
                "time": self._now,
                "pose": robot.pose,
                "tool_speed": robot.tool_speed,
                "q": robot.arm.q,
                "qd": robot.arm.qd,
                "safety_mode": robot.safety_mode,
                "is_program_running": robot.program is not None,
                "payload": robot.payload,
                "payload_cog": robot.payload_cog,
                "tcp": matrix_to_pose(robot.arm.tcp),
                "command_times": np.array(robot.command_times),
            }
