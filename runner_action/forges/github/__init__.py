"""GitHub. Only `client.py` and what it imports load PyGithub."""
