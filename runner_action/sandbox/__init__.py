"""The embedded world: GitHub, GitLab and the clouds as servers on this machine, whose instances are
local processes.

An optional extra (`pip install cml-runner[sandbox]`), for `cml-runner sandbox` and the tests. The
product does not depend on it.
"""
