"""Training of implicit behavioural cloning on low-dimensional observations."""

from diffusion_policy.workspace.train_workspace import TrainWorkspace


class TrainIbcDfoLowdimWorkspace(TrainWorkspace):
    """Adds nothing: the name that configs and checkpoints of the field refer to."""
