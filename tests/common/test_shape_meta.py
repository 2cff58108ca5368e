import pytest

from diffusion_policy.common.shape_meta import ShapeMeta

OBS = {"wrist": {"shape": [3, 8, 9], "type": "rgb"}, "pos": {"shape": [2]}, "arm": {"shape": [7], "type": "low_dim"}}


def test_keys_keep_their_order():
    meta = ShapeMeta.parse({"obs": OBS, "action": {"shape": [10]}})
    assert list(meta.obs.items()) == [("wrist", (3, 8, 9)), ("pos", (2,)), ("arm", (7,))]
    assert meta.rgb_keys == ("wrist",)
    assert meta.low_dim_keys == ("pos", "arm")
    assert meta.action_dim == 10


@pytest.mark.parametrize(
    ("shape_meta", "message"),
    [
        ({"obs": OBS}, "has no 'action'; it has \\['obs'\\]"),
        ({"obs": {}, "action": {"shape": [2]}}, "obs is empty"),
        ({"obs": {"a": {"shape": [2], "type": "depth"}}, "action": {"shape": [2]}}, "obs.a has type 'depth'"),
        ({"obs": {"a": {"shape": [8, 9], "type": "rgb"}}, "action": {"shape": [2]}}, "obs.a.shape is .* \\[C, H, W\\]"),
        ({"obs": {"a": {"shape": [2, 2]}}, "action": {"shape": [2]}}, "obs.a.shape is \\[2, 2\\], expected \\[D\\]"),
        ({"obs": {"a": {}}, "action": {"shape": [2]}}, "obs.a.shape is \\[\\]"),
        ({"obs": OBS, "action": {"shape": [0]}}, "action.shape is \\[0\\], expected \\[Da\\]"),
    ],
)
def test_bad_entries_are_named(shape_meta, message):
    with pytest.raises(ValueError, match=message):
        ShapeMeta.parse(shape_meta)
