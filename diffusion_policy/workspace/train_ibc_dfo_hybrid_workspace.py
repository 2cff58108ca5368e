"""Training of implicit behavioural cloning on images and vectors."""

from diffusion_policy.workspace.train_workspace import TrainWorkspace


class TrainIbcDfoHybridWorkspace(TrainWorkspace):
    """Adds nothing: the name that configs and checkpoints of the field refer to."""
