"""What ends a run: its deadline, an interrupt, a signal."""
