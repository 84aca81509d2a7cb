"""What ends a run: its deadline, an interrupt, a signal; and what is said while there is no row yet."""
