"""The robot, its cameras and its operator; `sim` has the same hardware, simulated."""
