"""The agent: the program on the machine. It needs Python 3.9 or later, uses the standard library
only, and imports nothing from outside this folder.

It travels in the user data (`bootstrap/`), so it must stay small.
"""
