"""Bins of actions, found by k-means (Shafiullah et al. 2022, section 3.1)."""

import torch
from torch import Tensor, nn

from diffusion_policy.model.common.dict_of_tensor_mixin import DictOfTensorMixin

N_ITERATIONS = 50


class KMeansDiscretizer(DictOfTensorMixin):
    """Says which bin an action is in, and where in it: its offset from the bin's centre.

    Args:
        action_dim: length Da of an action.
        num_bins: bins K.
        predict_offsets: latents are bins and offsets, else bins alone: decoded actions are then bins' centres.
    """

    def __init__(self, action_dim: int, num_bins: int = 100, predict_offsets: bool = False) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.n_bins = num_bins
        self.predict_offsets = predict_offsets

    @property
    def bin_centers(self) -> Tensor:
        """Centres of the bins `(K, Da)`."""
        if "bin_centers" not in self.params_dict:
            raise RuntimeError("the bins are not known: call fit_discretizer(actions), or load a checkpoint, first")
        return self.params_dict["bin_centers"]

    @torch.no_grad()
    def fit_discretizer(self, input_actions: Tensor) -> None:
        """Finds the bins of actions `(N, Da)`, on the device where these are."""
        if input_actions.ndim != 2 or input_actions.shape[1] != self.action_dim:
            raise ValueError(f"got actions {tuple(input_actions.shape)}, expected (N, {self.action_dim})")
        if len(input_actions) < self.n_bins:
            raise ValueError(f"{len(input_actions)} actions are too few for num_bins={self.n_bins}: lower num_bins")
        centers = _k_means(input_actions, self.n_bins)
        self.params_dict["bin_centers"] = nn.Parameter(centers, requires_grad=False)

    def encode_into_latent(
        self, input_action: Tensor, input_rep: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Bins `(..., 1)` int64 of actions `(..., Da)`; with `predict_offsets` also the offsets `(..., Da)`.

        `input_rep` is not read: bins do not depend on observations.
        """
        centers = self.bin_centers
        flat = input_action.reshape(-1, self.action_dim)
        bins = _nearest(flat, centers)
        offsets = flat - centers[bins]
        bins = bins.reshape(*input_action.shape[:-1], 1)
        return (bins, offsets.reshape(input_action.shape)) if self.predict_offsets else bins

    def decode_actions(
        self, latent_action_batch: Tensor | tuple[Tensor, Tensor], input_rep_batch: Tensor | None = None
    ) -> Tensor:
        """Actions `(..., Da)` of bins `(..., 1)`, or of bins and offsets; inverse of `encode_into_latent`."""
        if isinstance(latent_action_batch, tuple):
            bins, offsets = latent_action_batch
            return self.bin_centers[bins.squeeze(-1)] + offsets
        return self.bin_centers[latent_action_batch.squeeze(-1)]

    @property
    def suggested_actions(self) -> Tensor:
        """The centres of the bins `(K, Da)`."""
        return self.bin_centers

    @property
    def discretized_space(self) -> int:
        """How many bins there are, K."""
        return self.n_bins

    @property
    def latent_dim(self) -> int:
        """Length of a bin in the latents."""
        return 1

    @property
    def num_latents(self) -> int:
        """How many bins there are, K."""
        return self.n_bins


def _nearest(points: Tensor, centers: Tensor) -> Tensor:
    """Index `(N,)` of the centre `(K, D)` that is nearest to each point `(N, D)`."""
    return (points[:, None] - centers[None]).square().sum(dim=-1).argmin(dim=1)


def _k_means(points: Tensor, n_clusters: int) -> Tensor:
    """Centres `(K, D)` of points `(N, D)` by Lloyd's algorithm, all on the points' device.

    It starts from K points drawn at random. A cluster without points moves to a point that is drawn anew.
    """
    n_points, dim = points.shape
    centers = points[torch.randperm(n_points, device=points.device)[:n_clusters]]
    for _ in range(N_ITERATIONS):
        nearest = _nearest(points, centers)
        counts = points.new_zeros(n_clusters).index_add_(0, nearest, points.new_ones(n_points))
        sums = points.new_zeros(n_clusters, dim).index_add_(0, nearest, points)
        is_empty = counts == 0
        # Drawn in every iteration and dealt to the empty ones in turn, so that nothing waits for their number.
        drawn = torch.randperm(n_points, device=points.device)[:n_clusters]
        redrawn = points[drawn[is_empty.cumsum(0) - 1]]
        centers = torch.where(is_empty[:, None], redrawn, sums / counts[:, None].clamp(min=1))
    return centers
