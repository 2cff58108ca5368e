"""What each of the controller's three ports says to one client."""

import logging
import re
import struct
from collections import deque
from collections.abc import MutableMapping
from typing import Any, Protocol

from diffusion_policy.real_world.sim import rtde_protocol as rtde
from diffusion_policy.real_world.sim.ur_robot import NORMAL, PROTECTIVE_STOP, UrRobot

logger = logging.getLogger(__name__)

_TOO_SOON = (
    "Cannot unlock protective stop until 5s after occurrence. Always inspect cause of protective stop before unlocking"
)

Owners = MutableMapping[str, "RtdeSession"]


class Session(Protocol):
    """One client of one port."""

    def greeting(self) -> bytes: ...
    def receive(self, data: bytes) -> bytes: ...
    def data(self, n_ticks: int, states: dict[str, Any]) -> bytes: ...
    def close(self) -> None: ...


class TextSession:
    """A client that gets answers, but no data of its own accord."""

    def __init__(self, robot: UrRobot) -> None:
        self._robot = robot
        self._text = ""

    def greeting(self) -> bytes:
        return b""

    def data(self, n_ticks: int, states: dict[str, Any]) -> bytes:
        return b""

    def close(self) -> None:
        pass


class ScriptSession(TextSession):
    """Runs each program whose last line has come (port 30003)."""

    def receive(self, data: bytes) -> bytes:
        self._text += data.decode(errors="replace")
        while end := re.search(r"(?m)^end\s*$", self._text):
            script, self._text = self._text[: end.end()], self._text[end.end() :]
            self._robot.run_program(script)
        return b""


class DashboardSession(TextSession):
    """Answers one line with one line (port 29999)."""

    def greeting(self) -> bytes:
        return b"Connected: Universal Robots Dashboard Server\n"

    def receive(self, data: bytes) -> bytes:
        self._text += data.decode(errors="replace")
        *lines, self._text = self._text.split("\n")
        return "".join(f"{self._answer(line.strip())}\n" for line in lines).encode()

    def _answer(self, command: str) -> str:
        robot = self._robot
        match command.lower():
            case "polyscopeversion":
                return (
                    "URSoftware 5.11.1.108318 (Jan 01 2024)"
                    if robot.e_series
                    else "URSoftware 3.15.8.106339 (Jan 01 2024)"
                )
            case "get serial number":
                return "20230000001"
            case "is in remote control":
                return "true"
            case "robotmode":
                return "Robotmode: RUNNING"
            case "safetymode" | "safetystatus":
                names = {NORMAL: "NORMAL", PROTECTIVE_STOP: "PROTECTIVE_STOP"}
                return f"{command.capitalize()}: {names.get(robot.safety_mode, 'ROBOT_EMERGENCY_STOP')}"
            case "running":
                return f"Program running: {str(robot.program is not None).lower()}"
            case "stop":
                robot.stop_program()
                return "Stopped"
            case "unlock protective stop":
                if robot.unlock_protective_stop():
                    return "Protective stop releasing"
                return _TOO_SOON
            case "close safety popup":
                return "closing safety popup"
            case "quit":
                return "Disconnected"
        return f"could not understand: '{command}'"


class RtdeSession:
    """Sends states and takes inputs as the client sets up (port 30004).

    Args:
        robot: to serve.
        owners: which session may write an input; shared by all of them.
        observer_lag: packages by which a client that writes no inputs is behind the others.
    """

    def __init__(self, robot: UrRobot, owners: Owners, observer_lag: int) -> None:
        self._robot = robot
        self._owners = owners
        self._buffer = bytearray()
        self._outputs: rtde.Recipe | None = None
        self._inputs: dict[int, rtde.Recipe] = {}
        self._every = 1
        self._started = False
        self._observer_lag = observer_lag
        self._on_the_way: deque[bytes] = deque()

    def greeting(self) -> bytes:
        return b""

    def receive(self, data: bytes) -> bytes:
        self._buffer += data
        return b"".join(self._answer(kind, payload) for kind, payload in rtde.take_packages(self._buffer))

    def data(self, n_ticks: int, states: dict[str, Any]) -> bytes:
        if not self._started or self._outputs is None or n_ticks % self._every:
            return b""
        self._on_the_way.append(self._outputs.pack(states))
        lag = 0 if self._inputs else self._observer_lag
        return b"".join(self._on_the_way.popleft() for _ in range(len(self._on_the_way) - lag))

    def close(self) -> None:
        for name in [name for name, owner in self._owners.items() if owner is self]:
            del self._owners[name]

    def _answer(self, kind: bytes, payload: bytes) -> bytes:
        if kind == rtde.DATA:
            self._robot.write_inputs(self._inputs[payload[0]].unpack(payload))
            return b""
        if kind == rtde.PROTOCOL_VERSION:
            return rtde.package(kind, struct.pack(">?", payload == struct.pack(">H", 2)))
        if kind == rtde.CONTROLLER_VERSION:
            return rtde.package(
                kind, struct.pack(">4I", *((5, 11, 1, 108318) if self._robot.e_series else (3, 15, 8, 106339)))
            )
        if kind == rtde.SETUP_OUTPUTS:
            return rtde.package(kind, self._set_up_outputs(payload))
        if kind == rtde.SETUP_INPUTS:
            return rtde.package(kind, self._set_up_inputs(payload))
        if kind in (rtde.START, rtde.PAUSE):
            self._started = kind == rtde.START
            return rtde.package(kind, b"\x01")
        logger.warning("An RTDE package of kind %r is ignored.", kind)
        return b""

    def _set_up_outputs(self, payload: bytes) -> bytes:
        (frequency,) = struct.unpack_from(">d", payload)
        names = rtde.variable_names(payload[8:])
        kinds = [rtde.type_of(name) or "NOT_FOUND" for name in names]
        if "NOT_FOUND" not in kinds:
            self._every = max(round(1 / self._robot.dt / frequency), 1)
            self._outputs = rtde.Recipe(names, 1)
        return b"\x01" + ",".join(kinds).encode()

    def _set_up_inputs(self, payload: bytes) -> bytes:
        names = rtde.variable_names(payload)
        kinds = [
            rtde.type_of(name) or "NOT_FOUND" if self._owners.get(name, self) is self else "IN_USE" for name in names
        ]
        number = len(self._inputs) + 1
        if not {"NOT_FOUND", "IN_USE"} & set(kinds):
            self._inputs[number] = rtde.Recipe(names, number)
            self._owners.update(dict.fromkeys(names, self))
        else:
            number = 0
        return bytes([number]) + ",".join(kinds).encode()
