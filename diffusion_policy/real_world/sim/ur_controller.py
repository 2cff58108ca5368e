"""A UR robot that is not there, for ur_rtde to talk to."""

import multiprocessing as mp
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from diffusion_policy.real_world.sim.ur_process import OnTick, UrSimulation, serve
from diffusion_policy.real_world.start_stop import StartStop

HOME = (0.0, -np.pi / 2, -np.pi / 2, -np.pi / 2, np.pi / 2, 0.0)
"""The tool points down, 0.49 m before the base and 0.43 m above it."""


class SimulatedUR(StartStop):
    """A UR5 (CB3, 125 Hz) or UR5e (500 Hz) in a process of its own, which serves RTDE, dashboard and script port.

    A context manager: there is a robot inside the `with`. The process dies with the one that started it.

    Args:
        host: loopback address that it takes for itself; default: a free one of 127.0.0.2 to 127.0.0.254.
        e_series: a UR5e.
        servo_time_constant: lag (s) with which it follows servo commands; default: `lookahead_time * 300 / gain` of
            the command.
        initial_joints: `(6,)` (rad).
        on_tick: called after every tick, in the thread of the ticks, with `time.monotonic()` and the tool's pose
            `(6,)`. Where processes are not forked it must be picklable.
        unlock_delay: seconds after a protective stop before the dashboard releases it.
        observer_lag: ticks by which clients that give no commands hear later of what happens than those that do.

    Raises:
        OSError: no address is free.
    """

    def __init__(
        self,
        host: str | None = None,
        e_series: bool = False,
        servo_time_constant: float | None = None,
        initial_joints: Sequence[float] = HOME,
        on_tick: OnTick | None = None,
        unlock_delay: float = 5.0,
        observer_lag: int = 0,
    ) -> None:
        self._simulation = UrSimulation(
            host=host,
            e_series=e_series,
            servo_time_constant=servo_time_constant,
            initial_joints=initial_joints,
            on_tick=on_tick,
            unlock_delay=unlock_delay,
            observer_lag=observer_lag,
        )
        self.host = ""

    def start(self) -> None:
        """Returns when the ports are open."""
        self._pipe, pipe = mp.Pipe()
        self._process = mp.Process(target=serve, args=(self._simulation, pipe), name="SimulatedUR", daemon=True)
        threads = os.environ.get("OPENBLAS_NUM_THREADS")
        os.environ["OPENBLAS_NUM_THREADS"] = "1"  # for a process that is not forked
        try:
            self._process.start()
        finally:
            os.environ.pop("OPENBLAS_NUM_THREADS")
            if threads is not None:
                os.environ["OPENBLAS_NUM_THREADS"] = threads
        pipe.close()
        self.host = self._ask()

    def stop(self) -> None:
        """Ends it at once, as a power cut does."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def protective_stop(self) -> None:
        """As when the arm hits something."""
        self._ask("protective_stop")

    def emergency_stop(self) -> None:
        self._ask("emergency_stop")

    def stop_program(self) -> None:
        """As with the stop button of the teach pendant."""
        self._ask("stop_program")

    def drop_connections(self, refuse: bool = False) -> None:
        """Closes every connection; with `refuse` the ports too, as when the controller shuts down."""
        self._ask("drop_connections", refuse)

    def freeze(self) -> None:
        """Neither reads nor sends, with connections open, as when the cable is cut; the arm goes on."""
        self._ask("freeze")

    def unfreeze(self) -> None:
        self._ask("unfreeze")

    def state(self) -> dict[str, Any]:
        """The robot now: `time` (monotonic, s), `pose`, `tool_speed` `(6,)`, `q`, `qd` `(6,)`, `safety_mode`,
        `is_program_running`, `payload`, `payload_cog` `(3,)`, `tcp` pose `(6,)`, and `command_times` (monotonic, s)
        `(N,)`, when the last commands came."""
        state: dict[str, Any] = self._ask("state")
        return state

    def _ask(self, *request: Any) -> Any:
        try:
            if request:
                self._pipe.send(request)
            answer = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join(1)
            raise OSError(f"The simulated robot has died, with exit code {self._process.exitcode}.") from None
        if isinstance(answer, Exception):
            raise answer
        return answer
