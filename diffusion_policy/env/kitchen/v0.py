"""Which tasks of the kitchen count, and in which order."""

from diffusion_policy.env.kitchen.base import KitchenBase


class KitchenMicrowaveKettleBottomBurnerLightV0(KitchenBase):
    """Four tasks in this order."""

    TASK_ELEMENTS = ("microwave", "kettle", "bottom burner", "light switch")
    COMPLETE_IN_ANY_ORDER = False


class KitchenMicrowaveKettleLightSliderV0(KitchenBase):
    """Four tasks in this order."""

    TASK_ELEMENTS = ("microwave", "kettle", "light switch", "slide cabinet")
    COMPLETE_IN_ANY_ORDER = False


class KitchenKettleMicrowaveLightSliderV0(KitchenBase):
    """Four tasks in this order."""

    TASK_ELEMENTS = ("kettle", "microwave", "light switch", "slide cabinet")
    COMPLETE_IN_ANY_ORDER = False


class KitchenAllV0(KitchenBase):
    """All seven, in any order."""

    TASK_ELEMENTS = KitchenBase.ALL_TASKS
