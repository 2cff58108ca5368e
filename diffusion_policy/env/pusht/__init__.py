"""The Push-T simulator."""

import os

# Before the submodules import pygame, which otherwise greets on standard output.
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
