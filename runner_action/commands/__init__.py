"""A file for each story that a command tells."""
