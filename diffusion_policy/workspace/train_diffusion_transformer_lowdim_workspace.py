"""Training of the transformer-based diffusion policy on low-dimensional observations."""

from diffusion_policy.workspace.train_workspace import TrainWorkspace


class TrainDiffusionTransformerLowdimWorkspace(TrainWorkspace):
    """Adds nothing: the name that configs and checkpoints of the field refer to."""
