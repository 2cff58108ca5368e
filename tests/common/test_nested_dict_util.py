import operator

from diffusion_policy.common.nested_dict_util import nested_dict_check, nested_dict_map, nested_dict_reduce

NESTED = {"a": 1, "b": {"c": 2, "d": {"e": 3}}}


def test_map_reduce_and_check_reach_every_leaf() -> None:
    assert nested_dict_map(lambda x: 10 * x, NESTED) == {"a": 10, "b": {"c": 20, "d": {"e": 30}}}
    assert nested_dict_reduce(operator.add, NESTED) == 6
    assert nested_dict_check(lambda x: x > 0, NESTED)
    assert not nested_dict_check(lambda x: x < 3, NESTED)


def test_what_is_no_dict_is_a_leaf() -> None:
    assert nested_dict_map(str, 3) == "3"
    assert nested_dict_reduce(operator.add, 3) == 3
    assert nested_dict_check(bool, 3) is True
