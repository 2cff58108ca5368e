"""Poses in three dimensions."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation


class NoCopyAsDict:
    """A dataclass that gives its fields as they are; `dataclasses.asdict` would copy them."""

    def asdict(self) -> dict[str, Any]:
        """Its fields by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]


@dataclass(eq=False)
class Pose3d(NoCopyAsDict):
    """A rotation and a translation.

    Attributes:
        rotation: from the pose's frame to the world's.
        translation: `(3,)`, m.
    """

    rotation: Rotation
    translation: NDArray[np.float64]

    @property
    def vec7(self) -> NDArray[np.float64]:
        """Translation and quaternion (x, y, z, w), `(7,)`."""
        return np.concatenate((self.translation, self.rotation.as_quat()))

    def serialize(self) -> dict[str, list[float]]:
        """Its numbers, as JSON takes them."""
        return {"rotation": self.rotation.as_quat().tolist(), "translation": np.asarray(self.translation).tolist()}

    @classmethod
    def deserialize(cls, data: dict[str, list[float]]) -> Self:
        """Of what `serialize` returned."""
        return cls(Rotation.from_quat(data["rotation"]), np.array(data["translation"]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pose3d) and bool(np.array_equal(self.vec7, other.vec7))

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]
