"""GitLab. Only `client.py` and what it imports load python-gitlab."""
