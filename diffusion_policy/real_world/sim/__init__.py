"""The hardware, simulated so that the real client libraries talk to it."""
