"""GitLab. Only `client.py` and `errors.py` load python-gitlab."""
