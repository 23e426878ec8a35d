"""The inputs schema and the generator of what follows from it."""
