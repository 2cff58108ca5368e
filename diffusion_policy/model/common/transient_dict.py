"""What a module makes when it needs it, and can make again."""

from typing import Any


class TransientDict(dict[Any, Any]):
    """A dict that is empty in copies and pickles of its owner."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "TransientDict":
        return TransientDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return TransientDict, ()
