"""The keys that an operator presses, wherever they are pressed."""

import os
import select
import sys
import termios
import tty
from typing import Any, Protocol, Self

from diffusion_policy.real_world.display import has_display

SPACE, BACKSPACE = "space", "backspace"
_CHARACTERS = {" ": SPACE, "\x7f": BACKSPACE, "\b": BACKSPACE}


class OperatorKeys(Protocol):
    """A context manager that reads keys while it is open."""

    def pressed(self) -> list[str]:
        """Keys since the last call, in order: small letters, `space`, `backspace`."""

    def __enter__(self) -> Self: ...

    def __exit__(self, exc_type: object, exc_val: object, exc_tb: object) -> None: ...


def operator_keys() -> OperatorKeys:
    """The keyboard where there is a display, else what is typed into, or piped to, this program."""
    return KeyboardKeys() if has_display() else TerminalKeys()


class KeyboardKeys:
    """Keys of the keyboard, whatever window has the focus.

    Raises:
        ImportError: pynput is not installed.
    """

    def __init__(self) -> None:
        from diffusion_policy.real_world.keystroke_counter import KeystrokeCounter

        self._counter = KeystrokeCounter()

    def pressed(self) -> list[str]:
        return [name for key in self._counter.get_press_events() if (name := _name(key)) is not None]

    def __enter__(self) -> Self:
        self._counter.start()
        self._counter.wait()
        return self

    def __exit__(self, exc_type: object, exc_val: object, exc_tb: object) -> None:
        self._counter.stop()


class TerminalKeys:
    """Characters of standard input; of a terminal they come without Enter and are not shown."""

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._terminal: tuple[int, list[Any]] | None = None

    def pressed(self) -> list[str]:
        typed = ""
        while self._descriptor is not None and select.select([self._descriptor], [], [], 0)[0]:
            read = os.read(self._descriptor, 1024)
            if not read:  # its other end is closed: nothing will come
                self._descriptor = None
            typed += read.decode(errors="replace")
        return [_CHARACTERS.get(character, character.lower()) for character in typed if character != "\n"]

    def __enter__(self) -> Self:
        try:
            self._descriptor = sys.stdin.fileno()
        except (AttributeError, OSError, ValueError):  # there is none
            return self
        if os.isatty(self._descriptor):
            self._terminal = self._descriptor, termios.tcgetattr(self._descriptor)
            tty.setcbreak(self._descriptor)
        return self

    def __exit__(self, exc_type: object, exc_val: object, exc_tb: object) -> None:
        if self._terminal is not None:
            descriptor, settings = self._terminal
            termios.tcsetattr(descriptor, termios.TCSADRAIN, settings)


def _name(key: Any) -> str | None:
    """Of a key as pynput has it."""
    character = getattr(key, "char", None)
    if character is not None:
        return str(character).lower()
    return {"space": SPACE, "backspace": BACKSPACE}.get(getattr(key, "name", ""))
