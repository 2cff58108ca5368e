import struct

import numpy as np
import pytest

from diffusion_policy.real_world.sim import rtde_protocol as rtde


def test_packages_are_taken_whole_and_in_order() -> None:
    stream = (
        rtde.package(rtde.PROTOCOL_VERSION, b"\x00\x02") + rtde.package(rtde.START) + rtde.package(rtde.TEXT, b"hi")
    )
    assert stream.startswith(bytes([0, 5, 0x56, 0, 2]))
    buffer = bytearray()
    taken = []
    for byte in stream[:-1]:
        buffer.append(byte)
        taken += rtde.take_packages(buffer)
    assert taken == [(b"V", b"\x00\x02"), (b"S", b"")]
    assert rtde.take_packages(buffer) == []
    buffer += stream[-1:]
    assert rtde.take_packages(buffer) == [(b"M", b"hi")]
    assert not buffer


def test_values_come_through_a_recipe() -> None:
    names = ["timestamp", "actual_q", "joint_mode", "output_bit_register_70", "robot_status_bits", "payload_cog"]
    recipe = rtde.Recipe(names, 3)
    values = {
        "timestamp": 1.5,
        "actual_q": np.arange(6.0),
        "joint_mode": [253] * 6,
        "robot_status_bits": 3,
        "payload_cog": np.zeros(3),
    }
    ((kind, payload),) = rtde.take_packages(bytearray(recipe.pack(values)))
    assert kind == rtde.DATA
    assert payload[0] == 3
    back = recipe.unpack(payload)
    assert back == {
        "timestamp": 1.5,
        "actual_q": (0, 1, 2, 3, 4, 5),
        "joint_mode": (253,) * 6,
        "output_bit_register_70": False,  # without a value: zero
        "robot_status_bits": 3,
        "payload_cog": (0, 0, 0),
    }
    with pytest.raises(struct.error):
        recipe.unpack(payload[:-1])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("robot_mode", "INT32"),
        ("target_TCP_pose", "VECTOR6D"),
        ("input_int_register_47", "INT32"),
        ("output_double_register_0", "DOUBLE"),
        ("no_such_thing", None),
    ],
)
def test_every_state_has_the_type_that_clients_expect(name: str, kind: str | None) -> None:
    assert rtde.type_of(name) == kind


def test_lists_may_end_with_a_comma() -> None:
    assert rtde.variable_names(b"timestamp,actual_q,") == ["timestamp", "actual_q"]
