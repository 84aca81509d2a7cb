"""Measurements: outputs are checked before they are timed, paths take turns, and what is reported are ratios."""
