"""GitHub. Only `client.py` and what it is made of load PyGithub."""
