"""Files of others: what they may ask for, and how their names are shown."""
