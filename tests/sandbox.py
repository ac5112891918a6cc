"""The sandbox as tests use it: a process of its own, asked over HTTP."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from standalone.api_client import ApiClient


class Sandbox:
    """A running sandbox."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "standalone.sandbox"], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        self._client = ApiClient(self.url)

    @property
    def openai(self) -> str:
        return f"{self.url}/openai/v1"

    @property
    def anthropic(self) -> str:
        return f"{self.url}/anthropic"

    @property
    def gemini(self) -> str:
        return f"{self.url}/gemini"

    @property
    def elevenlabs(self) -> str:
        return f"{self.url}/elevenlabs"

    def fault(self, mode: str, *, protocol: str = "*", **fields: Any) -> None:
        """Have calls fail, or wait, until `reset`."""
        self._client.call("POST", "/_sandbox/faults", {"protocol": protocol, "mode": mode, **fields})

    def heal(self) -> None:
        """End all faults."""
        self._client.call("DELETE", "/_sandbox/faults")

    def calls(self) -> dict[str, Any]:
        """Count and last calls."""
        calls: dict[str, Any] = self._client.call("GET", "/_sandbox/calls")
        return calls

    def reset(self) -> None:
        """No faults, no calls."""
        self.heal()
        self._client.call("DELETE", "/_sandbox/calls")

    def close(self) -> None:
        self._client.close()
        self._process.terminate()
        self._process.wait(timeout=10)
        assert self._process.stdout is not None
        self._process.stdout.close()
