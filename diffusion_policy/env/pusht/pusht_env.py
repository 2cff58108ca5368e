"""Push-T: push a T-shaped block onto its goal with a round end effector (Chi et al. 2023, after Florence et al. 2021).

Lengths are in px of a 512 x 512 workspace whose y axis points down, angles in rad, velocities in px/s.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import cv2
import gymnasium
import numpy as np
import pygame
import pymunk
import shapely
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from diffusion_policy.env.pusht.pymunk_override import (
    DrawOptions,
    fill_convex_polygon,
    get_mouse_pos,
    surface_over,
    to_pygame,
)

FloatArray = NDArray[np.float64]
Pixels = NDArray[np.uint8]

TELEOP_START_RADIUS = 30.0  # px


class TeleopAgent(NamedTuple):
    """`act(obs)` returns the action (2,) that the mouse asks for, or None before it has reached the agent."""

    act: Callable[[Any], FloatArray | None]


class PushTEnv(gymnasium.Env[Any, FloatArray]):
    """Observation (5,): agent x, y, block x, y, block angle in [0, 2 pi). Action (2,): where the agent is driven to.

    Args:
        legacy: set the block's position before its angle. An angle turns the block about its centre of mass, so its
            position ends elsewhere than asked; the published demonstrations and scores start from such states.
        block_cog: centre of mass (2,) of the block in its own frame; None for the middle of bar and stem.
        damping: part of its velocity that the block keeps in a second; None for 0.
        render_action: draw the latest action's target as a red cross.
        render_size: side of a rendered image.
        reset_to_state: state (5,) that every reset starts from; None for one drawn by the seed.
    """

    metadata: dict[str, Any] = {
        "render_modes": ["human", "rgb_array"],
        "render_fps": 10,
        "render.modes": ["human", "rgb_array"],
        "video.frames_per_second": 10,
    }
    reward_range = (0.0, 1.0)
    render_mode = "rgb_array"

    latest_action: FloatArray | None

    def __init__(
        self,
        legacy: bool = False,
        block_cog: tuple[float, float] | None = None,
        damping: float | None = None,
        render_action: bool = True,
        render_size: int = 96,
        reset_to_state: ArrayLike | None = None,
    ) -> None:
        self.window_size = 512
        self.sim_hz = 100
        self.k_p, self.k_v = 100, 20
        self.control_hz: int = self.metadata["render_fps"]
        self.success_threshold = 0.95  # part of the goal that the block has to cover

        self.legacy = legacy
        self.block_cog = block_cog
        self.damping = damping
        self.render_action = render_action
        self.render_size = render_size
        self.reset_to_state = None if reset_to_state is None else _checked_state(reset_to_state)

        ws = float(self.window_size)
        self.observation_space: spaces.Space[Any] = spaces.Box(
            low=np.zeros(5), high=np.array([ws, ws, ws, ws, 2 * np.pi]), dtype=np.float64
        )
        self.action_space: spaces.Space[FloatArray] = spaces.Box(low=np.zeros(2), high=np.full(2, ws), dtype=np.float64)

        self._seed: int | None = None
        self._canvas: Pixels | None = None
        self.window: pygame.Surface | None = None
        self._setup()

    # ---- gymnasium's interface

    def seed(self, seed: int | None = None) -> None:
        """Sets what the next resets start from; None draws a seed from numpy's global generator."""
        self._seed = int(np.random.randint(0, 25536)) if seed is None else seed
        self.np_random = np.random.default_rng(self._seed)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode. Without `seed` it starts from the same state as the last one, as in the original."""
        super().reset(seed=seed)
        if seed is not None:
            self._seed = seed
        elif self._seed is None:
            self.seed()
        self._setup()
        self._set_state(self._draw_state() if self.reset_to_state is None else self.reset_to_state)
        return self._get_obs(), self._get_info()

    def step(self, action: ArrayLike | None) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Drives the agent towards `action` (2,) px for a control period (0.1 s); None lets no time pass.

        The reward is the covered part of the goal over `success_threshold`, clipped to [0, 1].
        """
        if action is not None:
            self.latest_action = _checked_action(action)
            self._simulate(self.sim_hz // self.control_hz, target=tuple(self.latest_action.tolist()))
        coverage = self._coverage()
        reward = min(max(coverage / self.success_threshold, 0.0), 1.0)
        return self._get_obs(), reward, coverage > self.success_threshold, False, self._get_info()

    def render(self, mode: str = "rgb_array") -> Pixels:
        """Image (render_size, render_size, 3) of the scene; mode `human` shows it in a window too."""
        if mode not in self.metadata["render_modes"]:
            raise ValueError(f"render mode is {mode!r}, expected one of {self.metadata['render_modes']}")
        return self._render_frame(mode)

    def close(self) -> None:
        """Closes the window of mode `human`."""
        if self.window is not None:
            pygame.display.quit()
            self.window = None

    def teleop_agent(self, mouse: Callable[[], tuple[float, float]] | None = None) -> TeleopAgent:
        """Control by the mouse over the window of mode `human`, from when it first comes close to the agent.

        `mouse` gives its position (px of the workspace); None asks pygame.
        """

        def act(obs: Any) -> FloatArray | None:
            if self.window is None:
                raise RuntimeError("teleoperation reads the mouse over the env's window: call render('human') first")
            position = get_mouse_pos(self.window) if mouse is None else mouse()
            if self.agent.position.get_distance(position) < TELEOP_START_RADIUS:
                self.teleop = True
            return np.array(position, dtype=np.float64) if self.teleop else None

        return TeleopAgent(act)

    # ---- state

    @property
    def goal_pose(self) -> FloatArray:
        """x, y, angle (3,) that the block should have. Read-only: to move the goal, assign another pose."""
        return self._goal_pose

    @goal_pose.setter
    def goal_pose(self, pose: ArrayLike) -> None:
        self._goal_pose = _checked(pose, 3, "a goal pose (x, y, angle)")
        self._goal_pose.setflags(write=False)
        self._goal_polygon = _placed(self._block_outline, *self._goal_pose.tolist())
        self._background: Pixels | None = None

    def _get_obs(self) -> Any:
        return np.array([*self.agent.position, *self.block.position, self.block.angle % (2 * np.pi)])

    def _get_info(self) -> dict[str, Any]:
        return {
            "pos_agent": np.array(self.agent.position),
            "vel_agent": np.array(self.agent.velocity),
            "block_pose": np.array([*self.block.position, self.block.angle]),
            "goal_pose": self.goal_pose.copy(),
            "n_contacts": math.ceil(self.n_contact_points / self._n_substeps),
        }

    def _draw_state(self) -> FloatArray:
        rng = np.random.RandomState(self._seed)
        agent = rng.randint(50, 450), rng.randint(50, 450)
        block = rng.randint(100, 400), rng.randint(100, 400)
        return np.array([*agent, *block, rng.randn() * 2 * np.pi - np.pi])

    def _set_state(self, state: ArrayLike) -> None:
        """Puts agent and block at `state` (5,), then runs one simulation step to let contacts act."""
        agent_x, agent_y, block_x, block_y, angle = _checked_state(state).tolist()
        self.agent.position = agent_x, agent_y
        if self.legacy:
            self.block.position = block_x, block_y
            self.block.angle = angle
        else:
            self.block.angle = angle
            self.block.position = block_x, block_y
        self._simulate(n_substeps=1)

    def _set_state_local(self, state_local: ArrayLike) -> FloatArray:
        """Sets and returns the state (5,) for an agent given in the block's frame and a block in the goal's frame."""
        agent_x, agent_y, block_x, block_y, angle = _checked_state(state_local).tolist()
        goal = self._get_goal_pose_body(self._goal_pose)
        self.block.angle = goal.angle + angle
        self.block.position = goal.local_to_world((block_x, block_y))
        self.agent.position = self.block.local_to_world((agent_x, agent_y))
        state = np.array([*self.agent.position, *self.block.position, self.block.angle])
        self._simulate(n_substeps=1)
        return state

    # ---- physics

    def _setup(self) -> None:
        """Builds the scene.

        What is added first and where it is added decides in which order the solver takes simultaneous contacts.
        Another choice leaves two of the 206 published demonstrations, which begin in contact, irreproducible.
        """
        self.space = pymunk.Space()
        self.space.gravity = 0, 0
        self.space.damping = 0 if self.damping is None else self.damping
        self.space.on_collision(0, 0, post_solve=self._handle_collision)
        self.space.add(
            self._add_segment((5, 506), (5, 5), 2),
            self._add_segment((5, 5), (506, 5), 2),
            self._add_segment((506, 5), (506, 506), 2),
            self._add_segment((5, 506), (506, 506), 2),
        )
        self.agent = self.add_circle((256, 400), 15)
        self.block = self.add_tee((256, 300), 0)
        if self.block_cog is not None:
            self.block.center_of_gravity = self.block_cog
        outline = shapely.union_all(pymunk_to_shapely(self.block, self.block.shapes)).exterior.coords
        self._block_outline = np.array([self.block.world_to_local(point) for point in outline])

        self.goal_color = pygame.Color("LightGreen")
        self.goal_pose = np.array([256, 256, np.pi / 4])
        self.latest_action = None
        self.teleop = False

    def _simulate(self, n_substeps: int, target: tuple[float, float] | None = None) -> None:
        """Runs the physics for `n_substeps` of 1 / sim_hz, the agent under PD control if it has a target (2,)."""
        self.n_contact_points, self._n_substeps = 0, n_substeps
        dt = 1.0 / self.sim_hz
        agent, space = self.agent, self.space
        for _ in range(n_substeps):
            if target is not None:
                x, y = agent.position
                vx, vy = agent.velocity
                ax = self.k_p * (target[0] - x) - self.k_v * vx
                ay = self.k_p * (target[1] - y) - self.k_v * vy
                agent.velocity = vx + ax * dt, vy + ay * dt
            space.step(dt)

    def _handle_collision(self, arbiter: pymunk.Arbiter, space: pymunk.Space, data: Any) -> None:
        self.n_contact_points += len(arbiter.contact_point_set.points)

    def _coverage(self) -> float:
        """Part of the goal's area that the block covers."""
        block = _placed(self._block_outline, *self.block.position, self.block.angle)
        return shapely.intersection(self._goal_polygon, block).area / self._goal_polygon.area

    def _get_goal_pose_body(self, pose: ArrayLike) -> pymunk.Body:
        """A body at `pose` (3,), outside of the space: its `local_to_world` is that of the goal's frame."""
        body = pymunk.Body()
        x, y, body.angle = np.asarray(pose, dtype=np.float64).tolist()
        body.position = x, y
        return body

    # ---- parts of the scene

    def _add_segment(self, a: tuple[float, float], b: tuple[float, float], radius: float) -> pymunk.Segment:
        shape = pymunk.Segment(self.space.static_body, a, b, radius)
        shape.color = pygame.Color("LightGray")
        return shape

    def add_circle(self, position: tuple[float, float], radius: float) -> pymunk.Body:
        """Adds a disc that moves as told (kinematic) and pushes what it meets."""
        body = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        body.position = position
        shape = pymunk.Circle(body, radius)
        shape.color = pygame.Color("RoyalBlue")
        self.space.add(body, shape)
        return body

    def add_box(self, position: tuple[float, float], height: float, width: float) -> pymunk.Body:
        """Adds a rectangle of mass 1 that can be pushed."""
        body = pymunk.Body(1, pymunk.moment_for_box(1, (width, height)))
        body.position = position
        shape = pymunk.Poly.create_box(body, (width, height))
        shape.color = pygame.Color("LightSlateGray")
        self.space.add(body, shape)
        return body

    def add_tee(
        self,
        position: tuple[float, float],
        angle: float,
        scale: float = 30,
        color: str = "LightSlateGray",
        mask: int = pymunk.ShapeFilter.ALL_MASKS(),
    ) -> pymunk.Body:
        """Adds a T of mass 1 that can be pushed: a bar of 4 x 1 and below it a stem of 1 x 3, in units of `scale`."""
        bar = [(x * scale, y * scale) for x, y in ((-2, 1), (2, 1), (2, 0), (-2, 0))]
        stem = [(x * scale, y * scale) for x, y in ((-0.5, 1), (-0.5, 4), (0.5, 4), (0.5, 1))]
        # Twice the bar's moment is not a T's. The published demonstrations and scores were made with it.
        body = pymunk.Body(1, 2 * pymunk.moment_for_poly(1, bar))
        shapes = [pymunk.Poly(body, vertices) for vertices in (bar, stem)]
        for shape in shapes:
            shape.color = pygame.Color(color)
            shape.filter = pymunk.ShapeFilter(mask=mask)
        body.center_of_gravity = (shapes[0].center_of_gravity + shapes[1].center_of_gravity) / 2
        body.position = position
        body.angle = angle
        self.space.add(body, *shapes)
        return body

    # ---- drawing

    def _render_frame(self, mode: str) -> Pixels:
        pixels = self._draw_scene(show=mode == "human")
        if self.render_action:
            self._draw_action(pixels)
        return pixels

    def _draw_scene(self, show: bool) -> Pixels:
        if self._canvas is None:
            self._canvas = np.empty((self.window_size, self.window_size, 4), dtype=np.uint8)
            self._draw_options = DrawOptions(surface_over(self._canvas))
        if self._background is None:
            self._background = self._draw_background()
        self._canvas[:] = self._background
        self.space.debug_draw(self._draw_options)
        if show:
            self._show(self._draw_options.surface)
        pixels = cv2.resize(self._canvas, (self.render_size, self.render_size))
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB), dtype=np.uint8)

    def _draw_background(self) -> Pixels:
        """The goal on white."""
        pixels = np.full((self.window_size, self.window_size, 4), 255, dtype=np.uint8)
        surface = surface_over(pixels)
        goal = self._get_goal_pose_body(self._goal_pose)
        for shape in self.block.shapes:
            corners = [to_pygame(goal.local_to_world(v), surface) for v in shape.get_vertices()]
            fill_convex_polygon(surface, self.goal_color, corners)
        return pixels

    def _draw_action(self, pixels: Pixels) -> None:
        if self.latest_action is None:
            return
        x, y = (self.latest_action / self.window_size * self.render_size).astype(int).tolist()
        unit = self.render_size / 96
        color, size, thickness = (255, 0, 0), int(8 * unit), max(1, int(unit))
        cv2.drawMarker(pixels, (x, y), color, cv2.MARKER_CROSS, markerSize=size, thickness=thickness)

    def _show(self, canvas: pygame.Surface) -> None:
        if self.window is None:
            pygame.display.init()
            self.window = pygame.display.set_mode(canvas.get_size())
        self.window.blit(canvas, (0, 0))
        pygame.event.pump()
        pygame.display.flip()


def pymunk_to_shapely(body: pymunk.Body, shapes: Iterable[pymunk.Shape]) -> shapely.MultiPolygon:
    """The polygons `shapes` of `body` in the world's frame; ValueError for other shapes."""
    polygons = []
    for shape in shapes:
        if not isinstance(shape, pymunk.Poly):
            raise ValueError(f"cannot convert a {type(shape).__name__}, expected only pymunk.Poly")
        polygons.append(shapely.Polygon([body.local_to_world(v) for v in shape.get_vertices()]))
    return shapely.MultiPolygon(polygons)


def _placed(outline: FloatArray, x: float, y: float, angle: float) -> shapely.Polygon:
    """The polygon of `outline` (N, 2) moved from its own frame to a pose."""
    cos, sin = math.cos(angle), math.sin(angle)
    return shapely.Polygon(outline @ np.array([[cos, sin], [-sin, cos]]) + (x, y))


def _checked(value: ArrayLike, size: int, meaning: str) -> FloatArray:
    array = np.array(value, dtype=np.float64)
    if array.shape != (size,):
        raise ValueError(f"got {meaning} of shape {array.shape}, expected ({size},)")
    if not np.isfinite(array).all():
        raise ValueError(f"got {meaning} {array}, expected finite numbers")
    return array


def _checked_action(action: ArrayLike) -> FloatArray:
    return _checked(action, 2, "an action (target x, y of the agent)")


def _checked_state(state: ArrayLike) -> FloatArray:
    return _checked(state, 5, "a state (agent x, y, block x, y, block angle)")
