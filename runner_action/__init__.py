"""cml-runner: a self-hosted CI runner on your own cloud, in one step."""

__version__ = "0.1.0"
