"""AgentSpec: all a machine needs to know, as JSON in a file that only root can read."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Dict, List, Optional, Tuple


@dataclasses.dataclass(frozen=True)
class AgentSpec:
    """Times are seconds, None for never. Of the secrets only those that are needed are there; see `secrets()`."""

    name: str
    forge: str
    repository_url: str
    api_url: str
    labels: Tuple[str, ...]
    idle_timeout: Optional[int]
    max_lifetime: int
    start_timeout: int
    single: bool
    runner_url: str
    runner_sha256: str
    download_token: Optional[str] = None
    jit_config: Optional[str] = None
    registration_token: Optional[str] = None
    removal_token: Optional[str] = None
    api_token: Optional[str] = None
    runner_id: Optional[int] = None
    job_user: str = "runner"

    def secrets(self) -> List[str]:
        """Every text that must never be shown."""
        held = (self.download_token, self.jit_config, self.registration_token, self.removal_token, self.api_token)
        return [text for text in held if text]

    def to_json(self) -> str:
        """JSON without the fields that say nothing."""
        fields = {key: value for key, value in dataclasses.asdict(self).items() if value is not None}
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> AgentSpec:
        """The way back. An unknown or missing field is an error: agent and launcher are one version."""
        fields: Dict[str, Any] = json.loads(text)
        fields["labels"] = tuple(fields["labels"])
        return cls(**{"idle_timeout": None, **fields})
