"""A GitLab, and a stand-in for gitlab-runner."""
