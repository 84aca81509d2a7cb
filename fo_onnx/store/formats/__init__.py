"""Files of results, one module for each format; which one a path asks for is in `registry`."""
