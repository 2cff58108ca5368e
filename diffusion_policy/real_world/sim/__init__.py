"""The robot's hardware, simulated: the real client libraries cannot tell it from the real one."""
