"""Training of the CNN-based diffusion policy on low-dimensional observations."""

from diffusion_policy.workspace.train_workspace import TrainWorkspace


class TrainDiffusionUnetLowdimWorkspace(TrainWorkspace):
    """Adds nothing: the name that configs and checkpoints of the field refer to."""
