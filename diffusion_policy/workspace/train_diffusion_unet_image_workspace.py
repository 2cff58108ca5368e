"""Training of the CNN-based diffusion policy on images."""

from diffusion_policy.workspace.train_workspace import TrainWorkspace


class TrainDiffusionUnetImageWorkspace(TrainWorkspace):
    """Adds nothing: the name that configs and checkpoints of the field refer to."""
