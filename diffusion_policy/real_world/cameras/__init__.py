"""Cameras: what they deliver (`frame_source`), each in a process of its own (`camera_process`)."""
