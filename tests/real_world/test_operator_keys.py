import os
import pty
import sys
import termios
import time
from collections.abc import Iterator

import pytest

from diffusion_policy.real_world.operator_keys import TerminalKeys


class Input:
    """Standard input that is a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """The two ends of a terminal whose near end is standard input."""
    far, near = pty.openpty()
    monkeypatch.setattr(sys, "stdin", Input(near))
    yield far, near
    os.close(far)
    os.close(near)


def _pressed(keys: TerminalKeys, n: int) -> list[str]:
    pressed: list[str] = []
    deadline = time.monotonic() + 10
    while len(pressed) < n and time.monotonic() < deadline:
        pressed += keys.pressed()
    return pressed


def test_keys_of_a_terminal_come_without_enter(terminal: tuple[int, int]) -> None:
    far, near = terminal
    before = termios.tcgetattr(near)
    with TerminalKeys() as keys:
        assert keys.pressed() == []
        os.write(far, b"C \x7fs")
        assert _pressed(keys, 4) == ["c", "space", "backspace", "s"]
    assert termios.tcgetattr(near) == before


def test_keys_are_read_from_a_pipe_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    source, sink = os.pipe()
    monkeypatch.setattr(sys, "stdin", Input(source))
    with TerminalKeys() as keys:
        os.write(sink, b"c\nq\n")
        assert _pressed(keys, 2) == ["c", "q"]
        os.close(sink)
        for _ in range(3):
            assert keys.pressed() == []
    os.close(source)


def test_without_input_there_are_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with TerminalKeys() as keys:
        assert keys.pressed() == []
