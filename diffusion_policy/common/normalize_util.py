"""Where the original keeps what stands in `model.common.normalize_util`."""

from diffusion_policy.model.common.normalize_util import (
    array_to_stats,
    get_identity_normalizer_from_stat,
    get_image_range_normalizer,
    get_range_normalizer_from_stat,
    robomimic_abs_action_normalizer_from_stat,
    robomimic_abs_action_only_dual_arm_normalizer_from_stat,
    robomimic_abs_action_only_normalizer_from_stat,
)

__all__ = [
    "array_to_stats",
    "get_identity_normalizer_from_stat",
    "get_image_range_normalizer",
    "get_range_normalizer_from_stat",
    "robomimic_abs_action_normalizer_from_stat",
    "robomimic_abs_action_only_dual_arm_normalizer_from_stat",
    "robomimic_abs_action_only_normalizer_from_stat",
]
