"""Demonstrators that know the task: they see poses and say where to move."""
