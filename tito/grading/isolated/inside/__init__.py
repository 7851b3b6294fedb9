"""All of our code that stands in the sandbox; there, its files are plain modules, and have the standard library and
NumPy alone."""
