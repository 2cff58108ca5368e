"""Arrays, rings and queues that processes share without locks, and that no crash leaves behind."""
