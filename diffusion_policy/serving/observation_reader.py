"""Requests' observations, checked, as the arrays that a policy sees."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffusion_policy.serving.images import as_trained, decode_jpeg, unit_scaled
from diffusion_policy.serving.limits import RequestError
from diffusion_policy.serving.policy_spec import PolicySpec

Obs = dict[str, np.ndarray]


class ObservationReader:
    """Reads the observations of requests for a policy.

    Args:
        spec: what the policy observes.
        max_pixels: that an image may have.
    """

    def __init__(self, spec: PolicySpec, max_pixels: int) -> None:
        self._spec = spec
        self._max_pixels = max_pixels
        self._cameras = set(spec.meta.rgb_keys)

    def read(self, request: Mapping[str, Any]) -> Obs:
        """Observations by the policy's keys: `(1, ...)` of single ones, `(To, ...)` of stacked ones.

        Sensors are float32. Images `(., C, h, w)` are of the size that the policy sees; they stay bytes, which move
        faster, unless they came as float32.

        Raises:
            RequestError: naming the key, what was given and what was expected.
        """
        given, obs = self._by_key(request), {}
        for key in self._spec.meta.obs:  # in one order: another one would have a GPU's graph captured anew
            read = self._camera if key in self._cameras else self._sensor
            try:
                obs[key] = read(key, given[key])
            except RequestError as error:
                raise RequestError(f"{key}: {error}") from None
        lengths = {key: len(value) for key, value in obs.items()}
        if len(set(lengths.values())) > 1:
            raise RequestError(f"single and stacked observations in one request, steps are {lengths}")
        return obs

    def _by_key(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The request's values by the policy's own keys."""
        named: dict[str, Any] = {}
        for name, value in request.items():
            for key, part in self._parts(name, value).items():
                if key in named:
                    raise RequestError(f"{key} is given twice, by its own name and by a short one")
                named[key] = part
        missing = [key for key in self._spec.meta.obs if key not in named]
        if missing:
            raise RequestError(f"the observation lacks {', '.join(missing)}; it has {', '.join(request) or 'nothing'}")
        return named

    def _parts(self, name: str, value: Any) -> dict[str, Any]:
        if name in self._spec.meta.obs:
            return {name: value}
        keys = self._spec.short_names.get(name)
        if keys is None:
            known = ", ".join([*self._spec.meta.obs, *self._spec.short_names])
            raise RequestError(f"unknown key {name[:80]!r}; this policy observes {known}")
        if len(keys) == 1:
            return {keys[0]: value}
        sizes = [self._spec.meta.obs[key][0] for key in keys]
        if not isinstance(value, np.ndarray) or value.ndim == 0 or value.shape[-1] != sum(sizes):
            raise RequestError(f"{name}: {_described(value)}, expected {sum(sizes)} numbers: {', '.join(keys)}")
        return dict(zip(keys, np.split(value, np.cumsum(sizes)[:-1], axis=-1), strict=True))

    def _camera(self, key: str, value: Any) -> np.ndarray:
        shape = self._spec.meta.obs[key]
        if isinstance(value, np.ndarray) and value.dtype == np.float32:
            return self._finished_images(value, shape)
        is_stacked = isinstance(value, list) or (isinstance(value, np.ndarray) and value.ndim == 4)
        images = list(self._all_steps(value)) if is_stacked else [value]
        if not all(map(_is_image, images)):
            raise RequestError(
                f"{_described(value)}, expected an image (H, W, {shape[0]}) uint8, JPEG bytes, or {shape} float32 in "
                f"[0, 1]; or {self._spec.n_obs_steps} of them"
            )
        seen = [self._image(image, shape) for image in images]
        return np.stack(seen) if len(seen) > 1 else seen[0][None]

    def _image(self, image: np.ndarray | bytes, shape: tuple[int, ...]) -> np.ndarray:
        pixels = decode_jpeg(image, self._max_pixels) if isinstance(image, bytes) else image
        return as_trained(pixels, shape, self._max_pixels)

    def _finished_images(self, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Images that are as the policy sees them."""
        if value.shape[-3:] != shape or value.ndim not in (3, 4):
            raise RequestError(f"{_described(value)}, expected {shape} of an image in float32")
        if not (value.min() >= 0 and value.max() <= 1):
            raise RequestError(f"{_described(value)} with values outside [0, 1], or NaN")
        value = value.copy()  # what was received cannot be written to, which torch warns of
        return value[None] if value.ndim == 3 else self._all_steps(value)

    def _sensor(self, key: str, value: Any) -> np.ndarray:
        (dim,) = self._spec.meta.obs[key]
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf" or value.ndim not in (1, 2):
            raise RequestError(f"{_described(value)}, expected numbers ({dim},), or ({self._spec.n_obs_steps}, {dim})")
        if "pose" in key and dim == 2 < value.shape[-1]:
            value = value[..., :2]  # of a pose in space, x and y, as datasets of the real robot are read
        if value.shape[-1] != dim:
            raise RequestError(f"{_described(value)}, expected {dim} numbers")
        with np.errstate(over="ignore"):
            value = value.astype(np.float32)
        if not np.isfinite(value).all():
            raise RequestError(f"{_described(value)} with NaN or infinite values")
        return value[None] if value.ndim == 1 else self._all_steps(value)

    def _all_steps(self, values: Any) -> Any:
        if len(values) != self._spec.n_obs_steps:
            raise RequestError(f"{len(values)} steps, expected one observation or {self._spec.n_obs_steps} stacked")
        return values


class History:
    """The last observations of one client, for a policy that sees `n_obs_steps` of them."""

    def __init__(self, n_obs_steps: int) -> None:
        self._steps: deque[Obs] = deque(maxlen=n_obs_steps)
        self._n_obs_steps = n_obs_steps

    def clear(self) -> None:
        """Forgets them."""
        self._steps.clear()

    def add(self, obs: Obs) -> Obs:
        """The last To observations `(To, ...)` by key, those of `obs` `(n, ...)` included.

        As in training, the oldest stands in for those that there are not.
        """
        n_new = len(next(iter(obs.values())))
        self._steps.extend({key: value[i] for key, value in obs.items()} for i in range(n_new))
        if n_new == self._n_obs_steps:
            return obs
        missing = self._n_obs_steps - len(self._steps)
        steps = [self._steps[0]] * missing + list(self._steps)
        return {key: stack([step[key] for step in steps]) for key in obs}


def stack(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Stacks arrays of equal shape; if some are images of bytes and some of float32, all become float32."""
    return np.stack(rows if len({row.dtype for row in rows}) == 1 else [unit_scaled(row) for row in rows])


def _is_image(value: Any) -> bool:
    return isinstance(value, bytes) or (isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3)


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"shape {value.shape} of {value.dtype}"
    size = f" of {len(value)}" if isinstance(value, list | bytes | str | dict) else ""
    return type(value).__name__ + size
