"""GitHub and GitLab, and the memory of runners and jobs that they share."""
