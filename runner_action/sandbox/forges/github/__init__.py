"""A GitHub, and stand-ins for actions/runner."""
