"""A result: distributions by id, as columns wherever they lie, and the numbers that describe them."""

from .distributions import Distributions

__all__ = ["Distributions"]
