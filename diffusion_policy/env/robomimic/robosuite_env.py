"""robosuite environments made from the metadata of robomimic's datasets, with observations by robomimic's names."""

import logging
import os
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from diffusion_policy.env.robomimic.env_meta import is_legacy, robosuite_kwargs

MODEL_SEED = 0
"""Seeds what robosuite draws once, when it builds the model: sizes of some objects."""

_GL_PACKAGES = "libegl1 libgl1-mesa-dri libegl-mesa0"
# Up to robosuite 1.4, with their signs: what `object` was made of, in this order. (In 1.5 relative poses come first.)
_LEGACY_OBJECT = {
    "Lift": {"cube_pos": 1, "cube_quat": 1, "gripper_to_cube_pos": -1},
    "TwoArmTransport": dict.fromkeys(
        (
            *("payload_pos", "payload_quat", "trash_pos", "trash_quat", "lid_handle_pos", "lid_handle_quat"),
            *("target_bin_pos", "trash_bin_pos", "gripper0_to_payload", "gripper0_to_lid_handle"),
            *("gripper1_to_payload", "gripper1_to_trash", "payload_in_target_bin", "trash_in_trash_bin"),
        ),
        1,
    ),
    "ToolHang": {
        **{
            f"{name}_{part}": 1
            for name in ("base", "frame", "tool")
            for part in ("pos", "quat", "to_robot0_eef_pos", "to_robot0_eef_quat")
        },
        "frame_is_assembled": 1,
        "tool_on_frame": 1,
    },
}
_LEGACY_OBJECT_PARTS = ("{}_pos", "{}_quat", "{}_to_robot0_eef_pos", "{}_to_robot0_eef_quat")
_LEGACY_SINGLE_OBJECT = {
    "PickPlaceCan": "Can",
    "PickPlaceMilk": "Milk",
    "PickPlaceBread": "Bread",
    "PickPlaceCereal": "Cereal",
    "NutAssemblySquare": "SquareNut",
    "NutAssemblyRound": "RoundNut",
}


class RobosuiteEnv:
    """A robosuite environment, state-only until an image is asked for.

    Args:
        env_meta: `env_args` of a robomimic dataset, recorded in robosuite 1.0 or later.
        cameras: (height, width) in px of the cameras whose images, `<camera>_image`, are among the observations.
        abs_action: see `robosuite_kwargs`.
        hard_reset: build the model anew at each reset, so that the sizes of objects follow the seed as well. It
            takes a second or so, in place of milliseconds.

    Raises:
        ImportError: robosuite is not installed.
        ValueError: robosuite does not know the environment or one of the cameras.
    """

    def __init__(
        self,
        env_meta: Mapping[str, Any],
        cameras: Mapping[str, tuple[int, int]] | None = None,
        abs_action: bool = False,
        hard_reset: bool = False,
    ) -> None:
        robosuite = _import_robosuite()
        self.name: str = env_meta["env_name"]
        if self.name not in robosuite.ALL_ENVIRONMENTS:
            known = ", ".join(sorted(robosuite.ALL_ENVIRONMENTS))
            raise ValueError(f"robosuite {robosuite.__version__} has no environment {self.name!r}; it has {known}")
        self._legacy = is_legacy(env_meta)
        self.env = robosuite.make(self.name, **robosuite_kwargs(env_meta, abs_action), seed=MODEL_SEED)
        self.env.hard_reset = hard_reset
        self.cameras = dict(cameras or {})
        known_cameras = list(self.env.sim.model.camera_names)
        for camera in self.cameras:
            if camera not in known_cameras:
                raise ValueError(f"{self.name} has no camera {camera!r}; it has {', '.join(known_cameras)}")

    @property
    def action_dim(self) -> int:
        """Entries of an action: 7 for each arm, position, rotation (axis-angle) and gripper."""
        return int(self.env.action_dim)

    @property
    def arms(self) -> list[Any]:
        """robosuite's controllers of the arms, in the order of the action."""
        return [robot.part_controllers[arm] for robot in self.env.robots for arm in robot.arms]

    def reset(self, seed: int | None = None) -> dict[str, NDArray[Any]]:
        """Starts an episode, the same for the same seed whatever was before; None continues the random numbers."""
        if seed is not None:
            # The environment's parts hold this very generator.
            self.env.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
        self.env.reset()
        return self._settled_observation()

    def reset_to(self, state: NDArray[np.float64], model: str | None = None) -> dict[str, NDArray[Any]]:
        """Starts an episode in a recorded state.

        Args:
            state: time, positions and velocities of all joints, `(S,)`.
            model: the recorded model (MJCF); None keeps the one that is loaded. Models recorded before robosuite 1.5
                name parts in ways that it does not know, and are left out.

        Raises:
            ValueError: the state does not fit the environment.
        """
        if model is not None and not self._legacy:
            self.env.reset_from_xml_string(self.env.edit_model_xml(model))
        else:
            self.reset(seed=MODEL_SEED)
        return self.set_state(state)

    def set_state(self, state: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        """Puts everything where a recorded state says, within an episode."""
        model = self.env.sim.model
        size = 1 + model.nq + model.nv
        if state.shape != (size,):
            raise ValueError(f"{self.name} has states ({size},), got {state.shape}: were they recorded in it?")
        self.env.sim.set_state_from_flattened(np.asarray(state, dtype=np.float64))
        self.env.sim.forward()
        for arm in self.arms:
            arm.update(force=True)  # else the next step starts from where the arm was before
        return self._settled_observation()

    def get_state(self) -> NDArray[np.float64]:
        """What `reset_to` and `set_state` take."""
        return np.array(self.env.sim.get_state().flatten())

    def get_model(self) -> str:
        """The model as MJCF."""
        return str(self.env.sim.model.get_xml())

    def step(self, action: NDArray[Any]) -> tuple[dict[str, NDArray[Any]], float, bool, dict[str, Any]]:
        """Executes an action `(Da,)` for a control period (0.05 s): observation, reward, False and infos."""
        _, reward, _, info = self.env.step(action)
        return self.get_observation(), float(reward), False, info

    def absolute_action(self, action: NDArray[Any]) -> NDArray[np.float64]:
        """The action of poses, in the world's frame, that has the arms go where an action of steps has them go now.

        Args:
            action: `(n * 7,)` for n arms; the gripper's entry stays.
        """
        absolute = np.array(action, dtype=np.float64).reshape(len(self.arms), -1)
        for arm, part in zip(self.arms, absolute, strict=True):
            arm.update(force=True)
            arm.set_goal(part[:6])
            position, rotation = arm.goal_pos, arm.goal_ori
            if arm.input_ref_frame == "base":
                position = arm.origin_pos + arm.origin_ori @ position
                rotation = arm.origin_ori @ rotation
            part[:6] = *position, *Rotation.from_matrix(rotation).as_rotvec()
        return absolute.reshape(-1)

    def is_success(self) -> bool:
        """Whether the task is accomplished."""
        return bool(self.env._check_success())

    def get_observation(self) -> dict[str, NDArray[Any]]:
        """Everything robosuite observes, `object`, and images `(H, W, 3)` uint8 of the cameras."""
        self._refresh("object")
        obs = {k: np.asarray(v) for k, v in self.env._get_observations().items() if not k.endswith("-state")}
        obs["object"] = self._object(obs)
        images = {f"{camera}_image": self.render(*size, camera) for camera, size in self.cameras.items()}
        return {**obs, **images}

    def render(self, height: int, width: int, camera_name: str) -> NDArray[np.uint8]:
        """An image `(H, W, 3)`.

        Raises:
            RuntimeError: there is no OpenGL to render with.
        """
        sim = self.env.sim
        if sim._render_context_offscreen is None:
            _open_gl(sim)
        image: NDArray[np.uint8] = sim.render(width=width, height=height, camera_name=camera_name)
        return np.ascontiguousarray(image[::-1])

    def close(self) -> None:
        """Frees the simulation."""
        if self.env.sim is not None:
            self.env.close()

    def _settled_observation(self) -> dict[str, NDArray[Any]]:
        self._refresh()
        return self.get_observation()

    def _refresh(self, modality: str | None = None) -> None:
        """Measures anew, twice: robosuite reckons relative poses of what it measured the time before."""
        for _ in range(2):
            for observable in self.env._observables.values():
                if modality is None or observable.modality == modality:
                    observable.update(timestep=self.env.model_timestep, obs_cache=self.env._obs_cache, force=True)

    def _object(self, obs: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        names = self._object_names(obs)
        return np.concatenate([sign * np.atleast_1d(obs[name]).astype(np.float64) for name, sign in names.items()])

    def _object_names(self, obs: Mapping[str, NDArray[Any]]) -> dict[str, int]:
        """What `object` consists of, with signs."""
        if self._legacy and self.name in _LEGACY_OBJECT:
            return _LEGACY_OBJECT[self.name]
        if self._legacy and self.name in _LEGACY_SINGLE_OBJECT:
            return dict.fromkeys((part.format(_LEGACY_SINGLE_OBJECT[self.name]) for part in _LEGACY_OBJECT_PARTS), 1)
        observables = self.env._observables
        return {name: 1 for name in obs if name in observables and observables[name].modality == "object"}


def _import_robosuite() -> ModuleType:
    """robosuite, without its advice on how to configure it."""
    logging.getLogger("robosuite_logs").addFilter(lambda record: record.levelno >= logging.ERROR)
    try:
        import robosuite
    except ModuleNotFoundError as error:
        raise ImportError(
            f"robomimic's tasks need {error.name}, which is not installed: pip install 'diffusion_policy[sim]'"
        ) from error
    except (AttributeError, ImportError, OSError, RuntimeError) as error:  # what MuJoCo raises, by the backend
        raise _no_gl(error) from error
    return robosuite


def _open_gl(sim: Any) -> None:
    """Gives a simulation what it renders with. Only here, so that processes that don't render never open OpenGL."""
    from robosuite.utils.binding_utils import MjRenderContextOffscreen

    try:
        MjRenderContextOffscreen(sim, device_id=-1)
    except Exception as error:  # EGL, OSMesa and GLFW each raise their own
        raise _no_gl(error) from error
    sim._render_context_offscreen.vopt.geomgroup[0] = 0  # collision meshes
    sim._render_context_offscreen.vopt.geomgroup[1] = 1


def _no_gl(error: BaseException) -> RuntimeError:
    backend = os.environ.get("MUJOCO_GL") or "unset, which means egl"
    return RuntimeError(
        f"MuJoCo finds no OpenGL to render with ({type(error).__name__}: {error}). MUJOCO_GL is {backend}. On a "
        f"machine without a screen use MUJOCO_GL=egl and install {_GL_PACKAGES} (Debian names), or the GPU's own driver"
    )
