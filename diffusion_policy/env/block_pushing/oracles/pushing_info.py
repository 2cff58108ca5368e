"""Where tool, block and target are to each other."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class PushingInfo:
    """What a push is decided on; points are `(2,)`, m.

    Attributes:
        xy_block: middle of the block.
        xy_ee: where the tool is driven to now.
        xy_dir_block_to_target: unit vector of the push.
        xy_pre_block: where a push begins: behind the block.
        distance_to_target: of the block.
        sideways: how far the tool is off the line of the push, to its left (along `rotate(pi / 2)` of it).
        behind: how far the tool is behind the block along the line of the push.
        obstacle_poses: middles of the blocks that a free move goes around.
    """

    xy_block: FloatArray
    xy_ee: FloatArray
    xy_dir_block_to_target: FloatArray
    xy_pre_block: FloatArray
    distance_to_target: float
    sideways: float
    behind: float
    obstacle_poses: list[FloatArray] = field(default_factory=list)
