"""What several commands share: their options, how they print and fail, and how they open what MODEL and DATA name."""
