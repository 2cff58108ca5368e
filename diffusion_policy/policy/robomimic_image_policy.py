"""robomimic's BC-RNN-GMM (Mandlekar et al. 2021) on cameras and sensors."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from diffusion_policy.common.draws import Generators
from diffusion_policy.common.shape_meta import ShapeMeta
from diffusion_policy.model.vision.crop_randomizer import CropRandomizer
from diffusion_policy.policy.base_image_policy import BaseImagePolicy
from diffusion_policy.policy.base_robomimic_policy import BaseRobomimicPolicy


class RobomimicImagePolicy(BaseRobomimicPolicy, BaseImagePolicy):
    """A recurrent network on features of each step. It crops images at random when it acts, too.

    Args:
        shape_meta: cameras, sensors and action.
        task_name: not read: robomimic's settings are the same for all tasks.
        For the others see BaseRobomimicPolicy.
    """

    def __init__(
        self,
        shape_meta: Mapping[str, Any],
        algo_name: str = "bc_rnn",
        obs_type: str = "image",
        task_name: str = "square",
        dataset_type: str = "ph",
        crop_shape: Sequence[int] | None = (76, 76),
    ) -> None:
        meta = ShapeMeta.parse(shape_meta)
        super().__init__(meta, algo_name, obs_type, dataset_type, crop_shape)
        self.obs_shapes = meta.obs

    def predict_action(self, obs_dict: Mapping[str, Any], generator: Generators = None) -> dict[str, Tensor]:
        with self._crops_drawn_from(generator):
            return super().predict_action(obs_dict, generator)

    def _observe(self, obs_dict: Mapping[str, Any], n_steps: int) -> dict[str, Tensor]:
        return self._normalized(obs_dict, self.obs_shapes, n_steps)

    @contextmanager
    def _crops_drawn_from(self, generator: Generators) -> Iterator[None]:
        crops = [module for module in self.nets.modules() if isinstance(module, CropRandomizer)]
        for crop in crops:
            crop.generators = generator
        try:
            yield
        finally:
            for crop in crops:
                crop.generators = None
