"""Scripted experts for robomimic's tasks, which see the whole state of the simulator; no two demonstrations are alike.

An expert is a generator of actions, of which each is to be executed before the next is asked for. It ends when it has
done what it can.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.env.robomimic.robosuite_env import RobosuiteEnv

Action: TypeAlias = NDArray[np.float64]
Vector: TypeAlias = NDArray[np.float64]
Expert: TypeAlias = Callable[[RobosuiteEnv, np.random.Generator], Iterator[Action]]

OPEN, CLOSE = -1.0, 1.0
_STEP = 0.05  # m that the largest action asks for
_TURN = 0.5  # rad that it asks for
_GAIN = 4.0  # of the way asked for at a time: the arm covers about a quarter of it in a control period
_UP = np.array([0.0, 0.0, 1.0])
_PEG_TOP = 0.16  # m above the table that the nut clears the peg


class _Hand:
    """The gripper of the first robot, and what moves it."""

    def __init__(self, env: RobosuiteEnv, rng: np.random.Generator) -> None:
        self._sim: Any = env.env.sim
        self._site = next(iter(env.env.robots[0].eef_site_id.values()))
        self._rng = rng
        self._speed = rng.uniform(0.7, 1.0)
        self._noise = rng.uniform(0.02, 0.08)

    @property
    def position(self) -> Vector:
        """Of the point between the finger tips, in the world (m)."""
        return np.array(self._sim.data.site_xpos[self._site])

    @property
    def rotation(self) -> NDArray[np.float64]:
        """Of the gripper in the world: fingers close along its x axis, and point along its z axis."""
        return np.array(self._sim.data.site_xmat[self._site]).reshape(3, 3)

    def toward(self, target: Vector, turn: float, gripper: float, speed: float = 1.0) -> Action:
        """An action that moves the hand towards `target` and turns it by up to `turn` (rad), pointing down."""
        move = _GAIN * (target - self.position) / _STEP
        move *= min(1.0, self._speed * speed / max(np.abs(move).max(), 1e-9))
        rotate = _GAIN * (np.cross(self.rotation[:, 2], -_UP) + turn * _UP) / _TURN
        move, rotate = move + self._rng.normal(0, self._noise, 3), np.clip(rotate, -0.6, 0.6)
        return np.clip(np.concatenate((move, rotate, [gripper])), -1, 1)


def lift(env: RobosuiteEnv, rng: np.random.Generator) -> Iterator[Action]:
    """Picks the cube up."""
    hand, cube = _Hand(env, rng), _Body(env, "cube_main")
    offset = rng.normal(0, 0.003, 3)
    yield from _pick(hand, lambda: cube.position + offset, lambda: _turn(hand, cube.yaw, np.pi / 2), rng)
    target = hand.position + np.array([*rng.normal(0, 0.01, 2), rng.uniform(0.1, 0.15)])
    yield from _move(hand, lambda: target, CLOSE, tolerance=0.02)


def can(env: RobosuiteEnv, rng: np.random.Generator) -> Iterator[Action]:
    """Puts the can into its compartment of the other bin."""
    hand, body = _Hand(env, rng), _Body(env, "Can_main")
    offset = np.array([*rng.normal(0, 0.003, 2), rng.uniform(0.0, 0.02)])
    yield from _pick(hand, lambda: body.position + offset, lambda: 0.0, rng)
    task = env.env
    bin_ = task.target_bin_placements[task.object_to_id["can"]] + np.array([*rng.uniform(-0.03, 0.03, 2), 0.0])
    above, height = rng.uniform(0.28, 0.34), rng.uniform(0.14, 0.18)
    lifted = np.array([*hand.position[:2], bin_[2] + above])
    yield from _move(hand, lambda: lifted, CLOSE, tolerance=0.06)
    yield from _move(hand, lambda: bin_ + above * _UP, CLOSE, tolerance=0.03)
    yield from _move(hand, lambda: bin_ + height * _UP, CLOSE, tolerance=0.02)
    yield from _let_go(hand, rng)


def square(env: RobosuiteEnv, rng: np.random.Generator) -> Iterator[Action]:
    """Puts the square nut over the square peg, by its handle."""
    hand, nut, peg = _Hand(env, rng), _Body(env, "SquareNut_main"), _Body(env, "peg1")
    handle = env.env.sim.model.site_name2id("SquareNut_handle_site")
    offset = np.array([*rng.normal(0, 0.002, 2), rng.uniform(-0.005, 0.0)])

    def grasp() -> Vector:
        return np.array(env.env.sim.data.site_xpos[handle]) + offset

    def along() -> float:
        """The fingers close across the handle, which points away from the nut's middle."""
        x, y = (grasp() - nut.position)[:2]
        return _turn(hand, float(np.arctan2(y, x)) + np.pi / 2, np.pi)

    yield from _pick(hand, grasp, along, rng)
    table = float(env.env.table_offset[2])
    # The peg is square, but with the handle beyond it the hand would be out of the arm's reach.
    directions = np.array([-1, 1, 2]) * np.pi / 2
    direction = min(directions, key=lambda angle: abs(_wrapped(angle - nut.yaw, 2 * np.pi)))
    drift = np.zeros(2)

    def align() -> float:
        return _wrapped(direction - nut.yaw, 2 * np.pi)

    def over(height: float) -> Vector:
        """Where the hand has to be for the nut to be at a height over the peg."""
        off = peg.position[:2] - nut.position[:2]
        drift[:] = np.clip(drift + 0.1 * off * (np.abs(off) < 0.02), -0.02, 0.02)  # what the arm alone does not make up
        return hand.position + np.array([*(off + drift), table + height - nut.position[2]])

    top = _PEG_TOP + rng.uniform(0.0, 0.04)
    lifted = np.array([*hand.position[:2], hand.position[2] + top])
    yield from _move(hand, lambda: lifted, CLOSE, tolerance=0.03)
    yield from _move(hand, lambda: over(top), CLOSE, tolerance=0.005, turn=align, max_turn=0.03, max_steps=120)
    for _ in range(100):
        height = nut.position[2] - table
        if height < 0.04:
            break
        is_over = np.linalg.norm(peg.position[:2] - nut.position[:2]) < 0.006
        jitter = rng.normal(0, 0.006, 2) if height > _PEG_TOP - 0.04 else np.zeros(2)  # it lies on top of the peg
        target = over(0.02 if is_over else _PEG_TOP) + np.array([*jitter, 0.0])
        yield hand.toward(target, align(), CLOSE, speed=0.6)
    yield from _let_go(hand, rng)


EXPERTS: dict[str, Expert] = {"Lift": lift, "PickPlaceCan": can, "NutAssemblySquare": square}
"""By environment of robosuite."""


class _Body:
    """A body of the simulation."""

    def __init__(self, env: RobosuiteEnv, name: str) -> None:
        self._sim: Any = env.env.sim
        self._id = self._sim.model.body_name2id(name)

    @property
    def position(self) -> Vector:
        """In the world (m)."""
        return np.array(self._sim.data.body_xpos[self._id])

    @property
    def yaw(self) -> float:
        """Direction of its x axis about the world's z axis (rad)."""
        x_axis = np.array(self._sim.data.body_xmat[self._id]).reshape(3, 3)[:, 0]
        return float(np.arctan2(x_axis[1], x_axis[0]))


def _turn(hand: _Hand, direction: float, period: float) -> float:
    """Turn about z (rad) after which the fingers close along `direction`, which counts up to multiples of `period`."""
    x_axis = hand.rotation[:, 0]
    return _wrapped(direction - np.arctan2(x_axis[1], x_axis[0]), period)


def _wrapped(angle: float, period: float) -> float:
    """The angle (rad) that is nearest to 0 among those that differ by multiples of `period`."""
    return float((angle + period / 2) % period - period / 2)


def _move(
    hand: _Hand,
    target: Callable[[], Vector],
    gripper: float,
    tolerance: float,
    turn: Callable[[], float] = lambda: 0.0,
    max_turn: float = np.pi,
    speed: float = 1.0,
    max_steps: int = 80,
) -> Iterator[Action]:
    """Moves until within `tolerance` (m) of the target and `max_turn` (rad) of its direction, or for `max_steps`."""
    for _ in range(max_steps):
        if np.linalg.norm(target() - hand.position) < tolerance and abs(turn()) < max_turn:
            return
        yield hand.toward(target(), turn(), gripper, speed)


def _pick(
    hand: _Hand, grasp: Callable[[], Vector], turn: Callable[[], float], rng: np.random.Generator
) -> Iterator[Action]:
    """Opens the hand over `grasp`, lowers it and closes it."""
    hover = np.array([*rng.normal(0, 0.005, 2), rng.uniform(0.06, 0.12)])
    yield from _move(hand, lambda: grasp() + hover, OPEN, tolerance=0.02, turn=turn, max_turn=0.1)
    yield from _move(hand, grasp, OPEN, tolerance=0.01, turn=turn, max_turn=0.1, speed=0.7)
    yield from _stay(hand, CLOSE, int(rng.integers(8, 12)))


def _let_go(hand: _Hand, rng: np.random.Generator) -> Iterator[Action]:
    yield from _stay(hand, OPEN, int(rng.integers(6, 10)))
    target = hand.position + rng.uniform(0.08, 0.12) * _UP
    yield from _move(hand, lambda: target, OPEN, tolerance=0.03, max_steps=30)


def _stay(hand: _Hand, gripper: float, n_steps: int) -> Iterator[Action]:
    place = hand.position
    for _ in range(n_steps):
        yield hand.toward(place, 0.0, gripper)
