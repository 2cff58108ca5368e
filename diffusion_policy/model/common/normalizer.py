"""Linear normalisation, fitted on data and kept in a policy's `state_dict`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_policy.common.pytorch_util import dict_apply
from diffusion_policy.model.common.dict_of_tensor_mixin import DictOfTensorMixin

DEFAULT_FIELD = "_default"


class SingleFieldLinearNormalizer(DictOfTensorMixin):
    """`x * scale + offset` on the last dimensions of one field."""

    avaliable_modes = ["limits", "gaussian"]

    @torch.no_grad()
    def fit(self, data: Any, *args: Any, **kwargs: Any) -> None:
        """Fits scale and offset to `data`; further arguments as for `LinearNormalizer.fit`."""
        self.params_dict = _fit(data, *args, **kwargs)

    @classmethod
    def create_fit(cls, data: Any, **kwargs: Any) -> "SingleFieldLinearNormalizer":
        """A normalizer fitted to `data`."""
        normalizer = cls()
        normalizer.fit(data, **kwargs)
        return normalizer

    @classmethod
    def create_manual(
        cls, scale: Any, offset: Any, input_stats_dict: Mapping[str, Any]
    ) -> "SingleFieldLinearNormalizer":
        """A normalizer from a given scale and offset; `input_stats_dict` has min, max, mean and std."""
        scale, offset = _as_tensor(scale), _as_tensor(offset)
        stats = {key: _as_tensor(value) for key, value in input_stats_dict.items()}
        for name, value in {"offset": offset, **stats}.items():
            if value.shape != scale.shape or value.dtype != scale.dtype:
                raise ValueError(
                    f"{name} is {tuple(value.shape)} {value.dtype}, scale is {tuple(scale.shape)} {scale.dtype}; "
                    "they must agree"
                )
        return cls(_frozen(scale, offset, stats))

    @classmethod
    def create_identity(cls, dtype: torch.dtype = torch.float32) -> "SingleFieldLinearNormalizer":
        """A normalizer that changes nothing, whatever the length of the last dimension."""
        one, zero = torch.ones(1, dtype=dtype), torch.zeros(1, dtype=dtype)
        return cls(_frozen(one, zero, {"min": -one, "max": one, "mean": zero, "std": one}))

    def normalize(self, x: Any) -> Tensor:
        """Maps data to the fitted range; shape kept."""
        return _normalize(x, self.params_dict, forward=True)

    def unnormalize(self, x: Any) -> Tensor:
        """Inverse of `normalize`."""
        return _normalize(x, self.params_dict, forward=False)

    def get_input_stats(self) -> nn.ParameterDict:
        """min, max, mean and std of the data it was fitted on."""
        return self.params_dict["input_stats"]

    def get_output_stats(self) -> dict[str, Tensor]:
        """The input statistics, normalised."""
        return dict_apply(dict(self.get_input_stats().items()), self.normalize)

    def __call__(self, x: Any) -> Tensor:
        return self.normalize(x)


class LinearNormalizer(DictOfTensorMixin):
    """A `SingleFieldLinearNormalizer` for each key of a dict (or one for a bare array)."""

    avaliable_modes = ["limits", "gaussian"]

    @torch.no_grad()
    def fit(
        self,
        data: Any,
        last_n_dims: int = 1,
        dtype: torch.dtype = torch.float32,
        mode: str = "limits",
        output_max: float = 1.0,
        output_min: float = -1.0,
        range_eps: float = 1e-4,
        fit_offset: bool = True,
    ) -> None:
        """Fits every field of `data`.

        Args:
            data: a dict of arrays or tensors `(N, ..., D)`, or one of these.
            last_n_dims: how many trailing dimensions get a scale of their own for each entry; the rest is
                reduced.
            dtype: of the parameters.
            mode: "limits" maps [min, max] to [output_min, output_max]; "gaussian" to mean 0 and std 1.
            output_max: upper end of the range ("limits").
            output_min: lower end of the range ("limits").
            range_eps: dimensions with a smaller range (or std) count as constant and are only shifted.
            fit_offset: without it only a scale is fitted, symmetric about zero.
        """
        fields = data if isinstance(data, Mapping) else {DEFAULT_FIELD: data}
        for key, value in fields.items():
            self.params_dict[key] = _fit(
                value,
                last_n_dims=last_n_dims,
                dtype=dtype,
                mode=mode,
                output_max=output_max,
                output_min=output_min,
                range_eps=range_eps,
                fit_offset=fit_offset,
                name=key,
            )

    @torch.no_grad()
    def fit_blocks(
        self,
        blocks: Iterable[Mapping[str, Any]],
        last_n_dims: int = 1,
        dtype: torch.dtype = torch.float32,
        **kwargs: Any,
    ) -> None:
        """Fits every field of data `(N, ..., D)` that are given some rows at a time; arguments as for `fit`."""
        moments: dict[str, _Moments] = {}
        for block in blocks:
            for key, value in block.items():
                of_block = _Moments.of(_rows(value, last_n_dims, dtype, key))
                moments[key] = moments[key].with_more(of_block) if key in moments else of_block
        for key, each in moments.items():
            self.params_dict[key] = _params(each.stats(dtype), **kwargs)

    def __call__(self, x: Any) -> Any:
        return self.normalize(x)

    def __getitem__(self, key: str) -> SingleFieldLinearNormalizer:
        return SingleFieldLinearNormalizer(self._field(key))

    def __setitem__(self, key: str, value: SingleFieldLinearNormalizer) -> None:
        self.params_dict[key] = value.params_dict

    def normalize(self, x: Any) -> Any:
        """Normalises a dict by key, or a bare array by the default field."""
        return self._scale(x, forward=True)

    def unnormalize(self, x: Any) -> Any:
        """Inverse of `normalize`."""
        return self._scale(x, forward=False)

    def get_input_stats(self) -> Any:
        """Statistics of the data by key (those of the default field alone if that is the only one)."""
        if set(self.params_dict.keys()) == {DEFAULT_FIELD}:
            return self.params_dict[DEFAULT_FIELD]["input_stats"]
        return {key: value["input_stats"] for key, value in self.params_dict.items() if key != DEFAULT_FIELD}

    def get_output_stats(self, key: str = DEFAULT_FIELD) -> Any:
        """The input statistics, normalised, by key (those of the default field alone if it is the only one)."""
        if set(self.params_dict.keys()) == {DEFAULT_FIELD}:
            return self[DEFAULT_FIELD].get_output_stats()
        return {name: self[name].get_output_stats() for name in self.get_input_stats()}

    def _scale(self, x: Any, forward: bool) -> Any:
        if isinstance(x, Mapping):
            return {key: _normalize(value, self._field(key), forward) for key, value in x.items()}
        return _normalize(x, self._field(DEFAULT_FIELD), forward)

    def _field(self, key: str) -> nn.ParameterDict:
        if key not in self.params_dict:
            fitted = sorted(self.params_dict.keys())
            hint = "call set_normalizer(dataset.get_normalizer()) first" if not fitted else f"it knows {fitted}"
            raise KeyError(f"the normalizer has no field {key!r}; {hint}")
        return self.params_dict[key]


def _as_tensor(data: Any) -> Tensor:
    return data if isinstance(data, Tensor) else torch.from_numpy(np.asarray(data))


def _frozen(scale: Tensor, offset: Tensor, stats: Mapping[str, Tensor]) -> nn.ParameterDict:
    params = nn.ParameterDict({"scale": scale, "offset": offset, "input_stats": nn.ParameterDict(stats)})
    return params.requires_grad_(False)


def _fit(
    data: Any,
    last_n_dims: int = 1,
    dtype: torch.dtype = torch.float32,
    mode: str = "limits",
    output_max: float = 1.0,
    output_min: float = -1.0,
    range_eps: float = 1e-4,
    fit_offset: bool = True,
    name: str = "data",
) -> nn.ParameterDict:
    rows = _rows(data, last_n_dims, dtype, name)
    stats = {"min": rows.amin(0), "max": rows.amax(0), "mean": rows.mean(0), "std": rows.std(0)}
    return _params(stats, mode, output_max, output_min, range_eps, fit_offset)


def _rows(data: Any, last_n_dims: int, dtype: torch.dtype, name: str) -> Tensor:
    rows = _as_tensor(data).to(dtype)
    width = int(np.prod(rows.shape[rows.ndim - last_n_dims :]))
    rows = rows.reshape(-1, width)
    if not bool(torch.isfinite(rows).all()):
        raise ValueError(f"{name!r} holds NaN or infinite values: mend the dataset before training on it")
    return rows


@dataclass
class _Moments:
    """What the statistics of rows follow from; those of more rows are found without the rows (Chan et al. 1979)."""

    count: int
    low: Tensor
    high: Tensor
    mean: Tensor
    squares: Tensor
    """Sum of the squared differences from the mean."""

    @classmethod
    def of(cls, rows: Tensor) -> Self:
        exact = rows.double()
        mean = exact.mean(0)
        return cls(len(rows), rows.amin(0), rows.amax(0), mean, (exact - mean).square().sum(0))

    def with_more(self, other: Self) -> Self:
        count = self.count + other.count
        apart = other.mean - self.mean
        return type(self)(
            count,
            torch.minimum(self.low, other.low),
            torch.maximum(self.high, other.high),
            self.mean + apart * (other.count / count),
            self.squares + other.squares + apart.square() * (self.count * other.count / count),
        )

    def stats(self, dtype: torch.dtype) -> dict[str, Tensor]:
        std = (self.squares / (self.count - 1)).sqrt()
        return {"min": self.low, "max": self.high, "mean": self.mean.to(dtype), "std": std.to(dtype)}


def _params(
    stats: Mapping[str, Tensor],
    mode: str = "limits",
    output_max: float = 1.0,
    output_min: float = -1.0,
    range_eps: float = 1e-4,
    fit_offset: bool = True,
) -> nn.ParameterDict:
    if mode == "limits":
        scale, offset = _fit_limits(stats, output_max, output_min, range_eps, fit_offset)
    elif mode == "gaussian":
        scale = 1 / torch.where(stats["std"] < range_eps, 1.0, stats["std"])
        offset = -stats["mean"] * scale if fit_offset else torch.zeros_like(scale)
    else:
        raise ValueError(f"mode must be one of {LinearNormalizer.avaliable_modes}, got {mode!r}")
    return _frozen(scale, offset, stats)


def _fit_limits(
    stats: Mapping[str, Tensor], output_max: float, output_min: float, range_eps: float, fit_offset: bool
) -> tuple[Tensor, Tensor]:
    low, high = stats["min"], stats["max"]
    if fit_offset:
        constant = high - low < range_eps
        scale = (output_max - output_min) / torch.where(constant, output_max - output_min, high - low)
        middle = (output_max + output_min) / 2
        return scale, torch.where(constant, middle - low, output_min - scale * low)
    if not output_min < 0 < output_max:
        raise ValueError(f"fit_offset=False needs output_min < 0 < output_max, got {output_min}, {output_max}")
    output_abs = min(abs(output_min), abs(output_max))
    input_abs = torch.maximum(low.abs(), high.abs())
    scale = output_abs / torch.where(input_abs < range_eps, output_abs, input_abs)
    return scale, torch.zeros_like(scale)


def _normalize(x: Any, params: nn.ParameterDict, forward: bool) -> Tensor:
    scale, offset = params["scale"], params["offset"]
    x = _as_tensor(x).to(device=scale.device, dtype=scale.dtype)
    rows = x.reshape(-1, scale.shape[0])
    rows = rows * scale + offset if forward else (rows - offset) / scale
    return rows.reshape(x.shape)
