from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from diffusion_policy.real_world.teleop_target import RAISE, ROTATE, TeleopTarget

POSE = [0.5, 0.0, 0.1, np.pi, 0, 0]


@dataclass
class Device:
    """A device that asks for one motion for ever."""

    motion: tuple[float, ...] = (1, 0.5, -1, 0, 0, 1)
    buttons: set[int] = field(default_factory=set)
    fault: None = None

    def get_motion_state_transformed(self) -> np.ndarray:
        return np.array(self.motion, np.float32)

    def is_button_pressed(self, button_id: int) -> bool:
        return button_id in self.buttons

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_the_tool_stays_in_its_plane_unless_buttons_are_held() -> None:
    target = TeleopTarget(POSE, max_pos_speed=0.25, max_rot_speed=0.6)
    np.testing.assert_allclose(target.move(Device(), 0.1), [0.525, 0.0125, 0.1, np.pi, 0, 0])
    np.testing.assert_allclose(target.move(Device(buttons={RAISE}), 0.1)[:3], [0.55, 0.025, 0.075])
    turned = target.move(Device(buttons={ROTATE}), 0.1)
    np.testing.assert_allclose(turned[:3], [0.55, 0.025, 0.075])
    expected = Rotation.from_rotvec([0, 0, 0.06]) * Rotation.from_rotvec(POSE[3:])
    assert (Rotation.from_rotvec(turned[3:]) * expected.inv()).magnitude() < 1e-9


def test_bounds_keep_x_and_y_and_all_else_stays() -> None:
    target = TeleopTarget(POSE, 0.25, 0.6, bounds=[[0.25, -0.45], [0.77, 0.01]])
    for _ in range(30):
        pose = target.move(Device(buttons={ROTATE, RAISE}), 0.1)
    np.testing.assert_allclose(pose, [0.77, 0.01, *POSE[2:]])
    pose[0] = 0  # what was returned is a copy
    assert target.pose[0] == 0.77
