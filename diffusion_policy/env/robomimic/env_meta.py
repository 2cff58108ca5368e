"""What a robomimic dataset says of its environment, in the terms of today's robosuite.

Datasets carry, as JSON, the name and the arguments of the robosuite environment they were recorded in. Up to robosuite
1.4 `controller_configs` is the configuration of one arm's controller; robosuite 1.5 wants one that has a part for each
arm, and calls some options otherwise.
"""

import copy
from collections.abc import Mapping
from typing import Any

EnvMeta = dict[str, Any]

ROBOSUITE_TYPE = 1
"""What robomimic calls robosuite among its kinds of environments."""

# Those that are ours to decide: whether to render is not the dataset's business.
_DROPPED = ("has_renderer", "has_offscreen_renderer", "use_camera_obs", "render_gpu_device_id", "seed")
_CAMERAS = ("camera_names", "camera_heights", "camera_widths", "camera_depths", "camera_segmentations")
_RENAMED = {"mount_types": "base_types"}
_RENAMED_OF_CONTROLLER = {"damping": "damping_ratio", "damping_limits": "damping_ratio_limits"}
_TOOL_CONTROLLERS = ("OSC_POSE", "OSC_POSITION")


def check_env_meta(env_meta: Any, source: str) -> EnvMeta:
    """Returns what was read as `env_args` of `source`.

    Raises:
        ValueError: it does not describe a robosuite environment.
    """
    fields = {"env_name": str, "type": int, "env_kwargs": dict}
    for name, kind in fields.items():
        if not isinstance(env_meta, dict) or not isinstance(env_meta.get(name), kind):
            raise ValueError(f"{source}: env_args has no {name!r} ({kind.__name__}); it is {str(env_meta)[:200]!r}")
    if env_meta["type"] != ROBOSUITE_TYPE:
        raise ValueError(
            f"{source}: the data are of environment type {env_meta['type']}, expected {ROBOSUITE_TYPE}, robosuite"
        )
    return env_meta


def is_legacy(env_meta: Mapping[str, Any]) -> bool:
    """Whether the data were recorded before robosuite 1.5, whose observations, names and controllers differ."""
    version = env_meta.get("env_version")
    if version is None:
        return not _is_composite(env_meta["env_kwargs"].get("controller_configs"))
    return tuple(int(part) for part in str(version).split(".")[:2]) < (1, 5)


def robosuite_kwargs(env_meta: Mapping[str, Any], abs_action: bool = False) -> dict[str, Any]:
    """Arguments for robosuite 1.5's `make` of the environment that the data were recorded in, without rendering.

    Args:
        env_meta: from any version of robosuite from 1.0 on.
        abs_action: actions are poses to reach, in the world's frame, instead of steps.

    Raises:
        ValueError: the actions cannot be poses with the controller that the data have.
    """
    given = copy.deepcopy(env_meta["env_kwargs"])
    kwargs = {_RENAMED.get(key, key): value for key, value in given.items() if key not in (*_DROPPED, *_CAMERAS)}
    if is_legacy(env_meta):
        kwargs["lite_physics"] = False  # the order in which robosuite stepped MuJoCo then
    kwargs["controller_configs"] = _controllers(kwargs.get("controller_configs"), abs_action)
    return {
        **kwargs,
        "has_renderer": False,
        "has_offscreen_renderer": False,
        "use_camera_obs": False,
        "renderer": "mujoco",
    }


def _is_composite(config: Any) -> bool:
    if isinstance(config, list):
        return bool(config) and all(_is_composite(each) for each in config)
    return isinstance(config, Mapping) and "body_parts" in config


def _controllers(config: Any, abs_action: bool) -> Any:
    if isinstance(config, list):
        return [_controllers(each, abs_action) for each in config]
    if not isinstance(config, Mapping):
        raise ValueError(f"env_args has the controller_configs {config!r}, expected a dict or a list of them")
    composite = copy.deepcopy(dict(config)) if _is_composite(config) else _composite(config)
    if abs_action:
        parts = composite["body_parts"]
        for arm in parts.get("arms", parts).values():
            if arm.get("type") not in _TOOL_CONTROLLERS:
                raise ValueError(
                    f"absolute actions need one of the controllers {_TOOL_CONTROLLERS}, got {arm['type']!r}"
                )
            arm.update(input_type="absolute", input_ref_frame="world")
    return composite


def _composite(arm: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of one arm's controller as robosuite 1.5 wants it: steps were in the world's frame."""
    part = {_RENAMED_OF_CONTROLLER.get(key, key): copy.deepcopy(value) for key, value in arm.items()}
    is_delta = part.pop("control_delta", True)
    part.update(input_type="delta" if is_delta else "absolute", input_ref_frame="world", gripper={"type": "GRIP"})
    return {"type": "BASIC", "body_parts": {"right": part}}
