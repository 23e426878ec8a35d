"""AgentSpec: what the launcher passes to a machine, as JSON in a file that only root can read."""

from __future__ import annotations

import dataclasses
import importlib
import json
from typing import Any, Dict, List, Optional, Tuple


@dataclasses.dataclass(frozen=True)
class AgentSpec:
    """Times are in seconds, None for never. It holds only the secrets that this machine needs; see
    `secrets()`."""

    name: str
    forge: str
    repository_url: str
    api_url: str
    labels: Tuple[str, ...]
    start_timeout: int
    runner_url: str
    runner_sha256: str
    idle_timeout: Optional[int] = 300
    first_job_timeout: Optional[int] = 300
    max_lifetime: Optional[int] = 432000
    single: bool = False
    cloud: str = ""
    """The provider of the machine; empty for a local one, which the agent does not end."""
    restart_limit: int = 0
    """How often a run may be restarted; 0: never."""
    launch_run: Optional[int] = None
    launch_job: Optional[int] = None
    launch_job_name: str = ""
    launch_project: str = ""
    """The run (on GitHub a workflow run, on GitLab a pipeline) and the job that launched this
    machine; None if that was not on this forge. `launch_project`: their repository or project; on
    GitHub empty if the runner belongs to that repository."""
    close_metadata: bool = False
    confined: bool = False
    """Jobs must not be able to become root."""
    environment: Dict[str, str] = dataclasses.field(default_factory=dict)
    """Proxies and certificates, for agent, runner and jobs."""
    download_token: Optional[str] = None
    jit_config: Optional[str] = None
    registration_token: Optional[str] = None
    removal_token: Optional[str] = None
    api_token: Optional[str] = None
    runner_token: Optional[str] = None
    pre_build_script: str = ""
    """Shell commands that each job's script begins with, on GitLab."""
    docker: bool = False
    """Jobs are promised Docker: without it the machine does not become a runner."""
    docker_volumes: Tuple[str, ...] = ()
    privileged: bool = False
    """The containers of GitLab jobs."""
    executor: str = ""
    """GitLab's, `docker` or `shell`; empty: by whether Docker works."""
    keep: bool = False
    """The workspace stays between jobs, on GitHub."""
    options: Tuple[str, ...] = ()
    """Further options for `config.sh`, on GitHub."""
    runner_id: Optional[int] = None
    job_user: str = "runner"

    def secrets(self) -> List[str]:
        """All texts that must never be shown."""
        tokens = (
            self.download_token,
            self.jit_config,
            self.registration_token,
            self.removal_token,
            self.api_token,
            self.runner_token,
        )
        proxies = [
            text.rpartition("@")[0].rpartition("//")[2]
            for text in self.environment.values()
            if "@" in text
        ]
        return [text for text in [*tokens, *proxies] if text]

    def joined(self) -> AgentSpec:
        """A copy without the secrets that are used up when the runner has registered."""
        return dataclasses.replace(
            self, download_token=None, registration_token=None, jit_config=None
        )

    def to_json(self) -> str:
        """JSON without the fields that have their default value."""
        defaults = self.__dataclass_fields__
        fields = {
            key: value
            for key, value in dataclasses.asdict(self).items()
            if value != defaults[key].default
        }
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> AgentSpec:
        """The inverse of `to_json`. An unknown or missing field is an error, as agent and launcher
        are of the same version. `jit` is a packed `jit_config`."""
        fields: Dict[str, Any] = json.loads(text)
        if "jit" in fields:
            fields["jit_config"] = importlib.import_module(".jit", __package__).whole(
                fields.pop("jit")
            )
        for name in ("labels", "docker_volumes"):
            fields[name] = tuple(fields.get(name, ()))
        return cls(**fields)
