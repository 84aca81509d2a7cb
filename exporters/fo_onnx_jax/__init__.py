"""The JAX plugin: functions over arrays and the modules of flax, equinox and haiku, exported, run natively, and their data."""
