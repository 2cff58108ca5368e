"""The robot: its arm, cameras and teleoperation, each in a process of its own."""
