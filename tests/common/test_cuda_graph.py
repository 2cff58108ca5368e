import gc
import weakref
from contextlib import suppress

import pytest

from diffusion_policy.common.cuda_graph import garbage_kept


class _Garbage:
    """Only the collector finds it."""

    def __init__(self):
        self.itself = self


def _thrown_away():
    return weakref.ref(_Garbage())


@pytest.fixture(autouse=True)
def _eager_collector():
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    yield
    gc.set_threshold(*before)
    gc.enable()


def test_garbage_goes_before_and_not_within():
    gc.disable()
    old = _thrown_away()
    gc.enable()
    with garbage_kept():
        assert old() is None
        new = _thrown_away()
        lists = [[] for _ in range(1000)]
        assert new() is not None
    lists += [[] for _ in range(1000)]
    assert new() is None


@pytest.mark.parametrize("was_enabled", [True, False])
def test_the_collector_is_afterwards_as_before_also_after_an_error(was_enabled):
    if not was_enabled:
        gc.disable()
    with suppress(ZeroDivisionError), garbage_kept():
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert gc.isenabled() == was_enabled
