"""`demo_real_robot.py`, without its command line."""

from diffusion_policy.real_world.demo_loop import DemoLoop
from diffusion_policy.real_world.devices import nobody_is_there
from diffusion_policy.real_world.robot_session import SessionOptions, open_station

SCRIPTED_EPISODES = 5
"""That are demonstrated by a script on the simulated rig if nobody is there."""


def demonstrate(options: SessionOptions, n_episodes: int | None) -> int:
    """Records episodes until the operator quits; returns how many there are.

    Args:
        n_episodes: that a script demonstrates on the simulated rig; None for a person, if there is one.

    Raises:
        RobotFaultError, CameraError, TeleopError, OperatorGone: what they say; the arm has stopped.
        ValueError, OSError: options that do not fit.
    """
    if n_episodes is None and options.sim and nobody_is_there():
        n_episodes = SCRIPTED_EPISODES
    with open_station(options, n_demonstrations=n_episodes) as (station, _):
        DemoLoop(station, options.command_latency).run(options.on_fault)
        return station.env.recorder.n_episodes
