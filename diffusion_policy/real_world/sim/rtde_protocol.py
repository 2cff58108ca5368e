"""Packages of the real-time data exchange (RTDE), version 2, as the controller reads and writes them."""

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

PROTOCOL_VERSION, CONTROLLER_VERSION, TEXT, DATA = b"V", b"v", b"M", b"U"
SETUP_OUTPUTS, SETUP_INPUTS, START, PAUSE = b"O", b"I", b"S", b"P"

_HEADER = struct.Struct(">Hc")
_FORMATS = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT32": "I",
    "UINT64": "Q",
    "INT32": "i",
    "DOUBLE": "d",
    "VECTOR3D": "3d",
    "VECTOR6D": "6d",
    "VECTOR6INT32": "6i",
}

# Clients unpack by tables of their own: what is served must have these types.
_NAMES = {
    "DOUBLE": """
        timestamp actual_execution_time speed_scaling target_speed_fraction actual_momentum actual_main_voltage
        actual_robot_voltage actual_robot_current standard_analog_input0 standard_analog_input1 standard_analog_output0
        standard_analog_output1 io_current tool_analog_input0 tool_analog_input1 tool_output_current tool_temperature
        tcp_force_scalar payload speed_slider_fraction external_force_torque_scalar""",
    "VECTOR6D": """
        target_q target_qd target_qdd target_current target_moment actual_q actual_qd actual_qdd actual_current
        actual_current_window joint_control_output actual_TCP_pose actual_TCP_speed actual_TCP_force target_TCP_pose
        target_TCP_speed joint_temperatures actual_joint_voltage payload_inertia ft_raw_wrench tcp_offset
        actual_current_as_torque external_force_torque""",
    "VECTOR3D": "actual_tool_accelerometer payload_cog elbow_position elbow_velocity",
    "INT32": "robot_mode safety_mode",
    "UINT32": """
        runtime_state robot_status_bits safety_status_bits analog_io_types tool_output_voltage tool_mode safety_status
        speed_slider_mask""",
    "UINT64": "actual_digital_input_bits actual_digital_output_bits",
    "UINT8": """
        standard_digital_output_mask standard_digital_output configurable_digital_output_mask
        configurable_digital_output tool_digital_output_mask tool_digital_output standard_analog_output_mask
        standard_analog_output_type""",
    "VECTOR6INT32": "joint_mode",
}
_TYPE_OF = {name: kind for kind, names in _NAMES.items() for name in names.split()}
_REGISTER = re.compile(r"(?:input|output)_(bit|int|double)_register_\d+")
_REGISTER_TYPES = {"bit": "BOOL", "int": "INT32", "double": "DOUBLE"}


def type_of(name: str) -> str | None:
    """The type of a state or input; None if there is none of that name."""
    if register := _REGISTER.fullmatch(name):
        return _REGISTER_TYPES[register[1]]
    return _TYPE_OF.get(name)


def package(kind: bytes, payload: bytes = b"") -> bytes:
    """The bytes of one package."""
    return _HEADER.pack(_HEADER.size + len(payload), kind) + payload


def take_packages(buffer: bytearray) -> list[tuple[bytes, bytes]]:
    """Kind and payload of each whole package, which are removed from `buffer`."""
    packages = []
    while len(buffer) >= _HEADER.size:
        size, kind = _HEADER.unpack_from(buffer)
        if len(buffer) < size or size < _HEADER.size:
            break
        packages.append((kind, bytes(buffer[_HEADER.size : size])))
        del buffer[:size]
    return packages


def variable_names(text: bytes) -> list[str]:
    """Of a comma-separated list, which may end with a comma."""
    return [name for name in text.decode().split(",") if name]


class Recipe:
    """Which variables the data packages of one recipe hold, in their order.

    Args:
        names: of variables that exist.
        number: the recipe's, which stands before the values.
    """

    def __init__(self, names: Sequence[str], number: int) -> None:
        self.names = names
        self.number = number
        kinds = [_FORMATS[str(type_of(name))] for name in names]
        self._counts = [int(kind[:-1] or 1) for kind in kinds]
        self._struct = struct.Struct(">B" + "".join(kinds))

    def pack(self, values: Mapping[str, Any]) -> bytes:
        """A data package; a variable without a value is zero."""
        flat: list[Any] = [self.number]
        for name, count in zip(self.names, self._counts, strict=True):
            value = values.get(name)
            if value is None:
                flat += [0] * count
            elif count == 1:
                flat.append(value)
            else:
                flat += value.tolist() if hasattr(value, "tolist") else value
        return package(DATA, self._struct.pack(*flat))

    def unpack(self, payload: bytes) -> dict[str, Any]:
        """The values of a data package; vectors as tuples.

        Raises:
            struct.error: it has another size.
        """
        flat: Iterable[Any] = iter(self._struct.unpack(payload)[1:])
        values = {}
        for name, count in zip(self.names, self._counts, strict=True):
            items = tuple(next(flat) for _ in range(count))  # type: ignore[call-overload]
            values[name] = items[0] if count == 1 else items
        return values
