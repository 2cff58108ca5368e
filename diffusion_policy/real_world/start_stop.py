"""What runs from `start` to `stop`."""

from typing import Protocol, TypeVar


class _Started(Protocol):
    def start(self) -> None: ...

    def stop(self) -> None: ...


T = TypeVar("T", bound=_Started)


class StartStop:
    """Makes a class with `start` and `stop` a context manager that calls them."""

    def __enter__(self: T) -> T:
        self.start()
        return self

    def __exit__(self: _Started, exc_type: object, exc_val: object, exc_tb: object) -> None:
        self.stop()
