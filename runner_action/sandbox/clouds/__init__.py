"""The clouds of the embedded world."""
