"""AgentSpec: all a machine needs to know, as JSON in a file that only root can read."""

from __future__ import annotations

import dataclasses
import importlib
import json
from typing import Any, Dict, List, Optional, Tuple


@dataclasses.dataclass(frozen=True)
class AgentSpec:
    """Times are seconds, None for never. Of the secrets only those that are needed are there;
    see `secrets()`."""

    name: str
    forge: str
    repository_url: str
    api_url: str
    labels: Tuple[str, ...]
    idle_timeout: Optional[int]
    first_job_timeout: Optional[int]
    max_lifetime: Optional[int]
    start_timeout: int
    single: bool
    runner_url: str
    runner_sha256: str
    cloud: str = ""
    """Where the machine comes from; empty for one that is not ours to end."""
    restart_limit: int = 0
    """How often a run may be restarted; 0: never."""
    launch_run: Optional[int] = None
    launch_job: Optional[int] = None
    launch_job_name: str = ""
    launch_project: str = ""
    """The run and the job in it that launched this machine; None if they are none of this
    forge's. Workflow run on GitHub, pipeline on GitLab; of `launch_project`, which on GitHub is
    told only if the runner is not that repository's alone."""
    close_metadata: bool = False
    confined: bool = False
    """Jobs must have no way to become root."""
    environment: Dict[str, str] = dataclasses.field(default_factory=dict)
    """Proxies and certificates, for agent, runner and jobs."""
    download_token: Optional[str] = None
    jit_config: Optional[str] = None
    registration_token: Optional[str] = None
    removal_token: Optional[str] = None
    api_token: Optional[str] = None
    runner_token: Optional[str] = None
    docker_volumes: Tuple[str, ...] = ()
    options: Tuple[str, ...] = ()
    """More words for `config.sh`, on GitHub."""
    runner_id: Optional[int] = None
    job_user: str = "runner"

    def secrets(self) -> List[str]:
        """Every text that must never be shown."""
        held = (
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
        return [text for text in [*held, *proxies] if text]

    def joined(self) -> AgentSpec:
        """Without what is used up once the runner has joined."""
        return dataclasses.replace(
            self, download_token=None, registration_token=None, jit_config=None
        )

    def to_json(self) -> str:
        """JSON without the fields that say nothing."""
        fields = {
            key: value
            for key, value in dataclasses.asdict(self).items()
            if value not in (None, "", {}, (), False)
        }
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> AgentSpec:
        """The way back. An unknown or missing field is an error: agent and launcher are one
        version. `jit` is `jit_config` made small."""
        fields: Dict[str, Any] = json.loads(text)
        if "jit" in fields:
            fields["jit_config"] = importlib.import_module(".jit", __package__).whole(
                fields.pop("jit")
            )
        for name in ("labels", "docker_volumes"):
            fields[name] = tuple(fields.get(name, ()))
        never = {
            "idle_timeout": None,
            "first_job_timeout": None,
            "max_lifetime": None,
            "single": False,
        }
        return cls(**{**never, **fields})
