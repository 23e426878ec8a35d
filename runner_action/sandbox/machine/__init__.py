"""Instances of all clouds as local processes."""
