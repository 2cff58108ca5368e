"""Whether a module's weights were changed or moved, asked at every prediction and hence quickly."""

from operator import attrgetter
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

_version = attrgetter("_version")
_n_registrations = 0


def _count_registration(*_: Any) -> None:
    global _n_registrations
    _n_registrations += 1


# Walking through a large module takes longer than all else here: it is done again only after some module, anywhere,
# was given a part.
register_module_module_registration_hook(_count_registration)
register_module_parameter_registration_hook(_count_registration)
register_module_buffer_registration_hook(_count_registration)


class WeightWatch:
    """Watches the parameters and buffers of a module.

    Args:
        module: what is watched.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._walked_at = -1
        self._tensors: list[Tensor] = []
        self._changeable: list[Tensor] = []

    def places(self) -> list[int]:
        """Where the weights lie: differs if one was moved or replaced."""
        self._walk()
        return list(map(Tensor.data_ptr, self._tensors))

    def versions(self) -> list[int]:
        """How often torch has changed each in place."""
        self._walk()
        return list(map(_version, self._changeable))

    def _walk(self) -> None:
        if self._walked_at != _n_registrations:
            self._tensors = [*self._module.parameters(), *self._module.buffers()]
            self._changeable = [tensor for tensor in self._tensors if not tensor.is_inference()]
            self._walked_at = _n_registrations
