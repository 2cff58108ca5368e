import copy

import numpy as np
import pytest
import torch
from fixtures import load_fixture

from diffusion_policy.model.common.normalizer import LinearNormalizer, SingleFieldLinearNormalizer

CASES = {
    "limits_obs": "obs",
    "gaussian_obs": "obs",
    "limits_nooffset_obs": "obs",
    "gaussian_nooffset_obs": "obs",
    "limits_eps5e-2": "obs",
    "limits_out_0_2": "obs",
    "limits_nooffset_out_-0.5_2": "obs",
    "limits_img_last0": "img",
    "limits_img_last2": "img",
    "limits_f64": "f64",
}


def _close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def _assert_state(module, expected):
    state = module.state_dict()
    assert list(state) == list(expected)
    for key, value in expected.items():
        _close(state[key], value)


@pytest.mark.parametrize("case", CASES)
def test_one_field_equals_fixture(compat, case):
    fixture = load_fixture(compat, "e_normalizer")
    data = fixture.tensor(f"in/{CASES[case]}")
    normalizer = SingleFieldLinearNormalizer.create_fit(data, **fixture.meta["cases"][case]["kwargs"])
    _assert_state(normalizer, fixture.tensors(f"out/{case}/state/"))
    normalized = normalizer.normalize(data)
    _close(normalized, fixture.tensor(f"out/{case}/normalized"))
    _close(normalizer.unnormalize(normalized), fixture.tensor(f"out/{case}/unnormalized"))
    for key, value in fixture.tensors(f"out/{case}/output_stats/").items():
        _close(normalizer.get_output_stats()[key], value)
    assert not any(parameter.requires_grad for parameter in normalizer.parameters())


def test_dict_of_fields_equals_fixture(compat):
    fixture = load_fixture(compat, "e_normalizer")
    data = {key: fixture.tensor(f"in/{key}") for key in ("obs", "action")}
    normalizer = LinearNormalizer()
    normalizer.fit(data)
    _assert_state(normalizer, fixture.tensors("out/dict/state/"))
    normalized = normalizer.normalize(data)
    for key in data:
        _close(normalized[key], fixture.tensor(f"out/dict/normalized/{key}"))
        _close(normalizer[key].normalize(data[key]), normalized[key])
        _close(normalizer.unnormalize(normalized)[key], fixture.tensor(f"out/dict/unnormalized/{key}"))
        for name, value in fixture.tensors(f"out/dict/output_stats/{key}/").items():
            _close(normalizer.get_output_stats()[key][name], value)


def test_bare_array_and_identity_equal_fixture(compat):
    fixture = load_fixture(compat, "e_normalizer")
    normalizer = LinearNormalizer()
    normalizer.fit(fixture.arrays["in/obs"])
    _assert_state(normalizer, fixture.tensors("out/default/state/"))
    normalized = normalizer(fixture.arrays["in/obs"])
    _close(normalized, fixture.tensor("out/default/normalized"))
    _assert_state(SingleFieldLinearNormalizer.create_identity(), fixture.tensors("out/identity/state/"))


def test_loading_rebuilds_whatever_fields_there_are():
    source = LinearNormalizer()
    source.fit({"obs": np.random.default_rng(0).normal(size=(9, 3)), "action": np.arange(8.0).reshape(4, 2)})
    target = LinearNormalizer()
    target.fit({"other": torch.randn(5, 7)})
    target.load_state_dict(source.state_dict())
    assert set(target.params_dict.keys()) == {"obs", "action"}
    assert not any(parameter.requires_grad for parameter in target.parameters())
    x = torch.randn(6, 5, 3)
    _close(copy.deepcopy(target)["obs"].unnormalize(target["obs"].normalize(x)), x)


def test_loading_leaves_a_normalizer_on_its_device():
    source = LinearNormalizer()
    source.fit({"obs": torch.randn(9, 3)})
    target = LinearNormalizer()
    target.fit({"obs": torch.randn(9, 3)})
    target.to("meta").load_state_dict(source.state_dict())
    assert {parameter.device.type for parameter in target.parameters()} == {"meta"}


def test_manual_normalizer_maps_as_told_and_refuses_other_shapes():
    stats = {key: np.zeros(2, np.float32) for key in ("min", "max", "mean", "std")}
    scale, offset = np.array([2, 3], np.float32), np.array([1, -1], np.float32)
    normalizer = SingleFieldLinearNormalizer.create_manual(scale, offset, stats)
    _close(normalizer.normalize(np.ones((1, 2), np.float32)), torch.tensor([[3.0, 2.0]]))
    with pytest.raises(ValueError, match="offset is"):
        SingleFieldLinearNormalizer.create_manual(scale, offset[:1], stats)


def test_bad_data_is_refused():
    normalizer = LinearNormalizer()
    with pytest.raises(ValueError, match="'obs' holds NaN"):
        normalizer.fit({"obs": np.array([[1.0], [np.nan]])})
    with pytest.raises(ValueError, match="mode must be"):
        normalizer.fit({"obs": np.ones((3, 1))}, mode="median")
    with pytest.raises(KeyError, match="no field 'obs'; call set_normalizer"):
        normalizer["obs"]
