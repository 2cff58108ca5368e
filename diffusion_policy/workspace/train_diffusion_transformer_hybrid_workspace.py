"""Training of the transformer-based diffusion policy with robomimic's visual encoder."""

from diffusion_policy.workspace.train_workspace import TrainWorkspace


class TrainDiffusionTransformerHybridWorkspace(TrainWorkspace):
    """Adds nothing: the name that configs and checkpoints of the field refer to."""
