"""Counts keys as they are pressed."""

import time
from collections import Counter
from threading import Lock

from diffusion_policy.real_world.keyboard_library import Key, KeyCode, Listener


class KeystrokeCounter(Listener):
    """A thread that counts how often each key was pressed since the last `clear`; a context manager runs it."""

    def __init__(self) -> None:
        super().__init__(on_press=self.on_press, on_release=self.on_release)
        self._counts: Counter[Key | KeyCode] = Counter()
        self._pressed: list[Key | KeyCode] = []
        self._lock = Lock()

    def on_press(self, key: Key | KeyCode) -> None:
        """Counts; a key that is held down counts again each time that it repeats."""
        with self._lock:
            self._counts[key] += 1
            self._pressed.append(key)

    def on_release(self, key: Key | KeyCode) -> None:
        """Does nothing."""

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._counts.clear()
            self._pressed.clear()

    def __getitem__(self, key: Key | KeyCode) -> int:
        """How often `key` was pressed since the last `clear`."""
        with self._lock:
            return self._counts[key]

    def get_press_events(self) -> list[Key | KeyCode]:
        """The keys pressed since the last call, in order."""
        with self._lock:
            events, self._pressed = self._pressed, []
        return events


if __name__ == "__main__":
    with KeystrokeCounter() as counter:
        while counter[Key.esc] == 0:
            time.sleep(0.1)
            for event in counter.get_press_events():
                print(event)  # noqa: T201 what the module is run for
