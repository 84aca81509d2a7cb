"""What crosses rooms and what plugins implement: plain data, and one protocol for each part that can be replaced."""
