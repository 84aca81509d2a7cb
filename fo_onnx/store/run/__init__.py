"""The run folder: what every run with ``out=`` is written into, so that it survives a kill and can be resumed."""
