"""Ways of the tool around the block."""

import itertools
import math

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.csgraph import shortest_path
from shapely.ops import nearest_points

from diffusion_policy.real_world.sim import tee
from diffusion_policy.real_world.sim.push_planner import in_workspace
from diffusion_policy.real_world.sim.pusht_world import TOOL_RADIUS

FloatArray = NDArray[np.float64]

NEAREST = 0.016  # m between tool and block that a way may come to
CORNERS = 0.024  # m from the block at which ways turn


def way_around(start: ArrayLike, end: ArrayLike, block_pose: ArrayLike) -> list[FloatArray] | None:
    """The shortest way that keeps off the block: points (x, y) after `start`, the last one `end`. None: there is none.

    A tool that touches the block first goes straight away from it.
    """
    block = tee.polygon(block_pose)
    forbidden = block.buffer(TOOL_RADIUS + NEAREST, join_style="mitre", mitre_limit=1.5)
    corners = block.buffer(TOOL_RADIUS + CORNERS, join_style="mitre", mitre_limit=1.5)
    points = [np.asarray(start, np.float64), np.asarray(end, np.float64)]
    away = []
    if forbidden.contains(shapely.Point(points[0])):
        points[0] = np.array(nearest_points(corners.exterior, shapely.Point(points[0]))[0].coords[0])
        away = [points[0]]
    points += [np.array(corner) for corner in corners.exterior.coords[:-1] if in_workspace(np.array(corner))]
    distances = np.full((len(points), len(points)), math.inf)
    for i, j in itertools.combinations(range(len(points)), 2):
        if not forbidden.intersects(shapely.LineString([points[i], points[j]])):
            distances[i, j] = distances[j, i] = np.hypot(*(points[i] - points[j]))
    lengths, before = shortest_path(distances, indices=0, return_predecessors=True)
    if not math.isfinite(lengths[1]):
        return None
    way, i = [], 1
    while i != 0:
        way.append(points[i])
        i = before[i]
    return away + way[::-1]
