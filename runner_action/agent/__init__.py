"""The agent: what lives on the machine. Standard library only, Python 3.9 or later, imports
nothing from outside this folder.

It travels as a zip application inside the user data (`bootstrap.py`), so it must stay small.
"""
