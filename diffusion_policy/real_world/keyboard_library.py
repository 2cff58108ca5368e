"""pynput's keyboard, which sees keys whatever window has the focus."""

import importlib.util

try:
    from pynput.keyboard import Key, KeyCode, Listener
except ImportError as error:
    if importlib.util.find_spec("pynput") is None:
        raise ImportError("The keyboard needs pynput: pip install 'diffusion_policy[real]'") from error
    raise ImportError(
        f"The keyboard cannot be read here: pynput finds no display ({error}). Run this in a graphical session, "
        "or give it one of its own: xvfb-run python ..."
    ) from error

__all__ = ["Key", "KeyCode", "Listener"]
