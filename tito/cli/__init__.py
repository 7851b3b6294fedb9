"""The command line: one file a group of commands; ``main`` loads a group only when it is called."""
