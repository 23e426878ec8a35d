"""The embedded world: a fake GitHub and an EC2 whose instances are local processes, all on this
machine.

An optional extra (`pip install cml-runner[sandbox]`), for `cml-runner sandbox` and for the
tests. Nothing of the product knows of it.
"""
