"""The applications that are measured: the same code for each system, as far as the system can run it."""
