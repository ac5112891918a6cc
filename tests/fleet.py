"""An installation as processes: the API and workers that the `orrery` command starts."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from standalone import people
from standalone.api_client import ApiClient
from standalone.supervisor import orrery
from standalone.up import free_port
from store.settings import Settings


class Fleet:
    """Starts parts of an installation and ends them. Their logs lie in `<home>/logs`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.url = ""  # of the API, once there is one
        self._processes: list[subprocess.Popen[bytes]] = []
        self._clients: list[ApiClient] = []
        self._logs = settings.home / "logs"
        self._logs.mkdir()
        people.create_admin(settings, email="root@example.com", role="super_admin", password="correct horse")

    def api(self) -> ApiClient:
        """Start the API; a client that may do everything."""
        port = free_port()
        self._start("api", "--port", str(port))
        self.url = f"http://127.0.0.1:{port}"
        client = ApiClient(self.url, self.token())
        self._clients.append(client)
        client.wait_until_ready()
        return client

    def worker(self, *, lanes: str = "standard,batch", threads: int = 4) -> subprocess.Popen[bytes]:
        """Start a worker process."""
        return self._start("worker", "--lanes", lanes, "--threads", str(threads))

    def token(self) -> str:
        """A super admin's token."""
        return people.admin_jwt(self.settings, email="root@example.com", mfa=True)

    def logs(self) -> str:
        """Everything the processes have logged."""
        return "".join(path.read_text() for path in sorted(self._logs.iterdir()))

    def log_folder(self) -> Path:
        return self._logs

    def stop(self) -> None:
        """End all processes; those that hang are killed and fail the test."""
        for client in self._clients:
            client.close()
        for process in self._processes:
            process.terminate()
        codes = [process.wait(timeout=20) for process in self._processes]
        assert set(codes) <= {0, -signal.SIGKILL}, f"a part ended badly: {codes}\n{self.logs()[-4000:]}"

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        log = self._logs / f"{len(self._processes)}-{arguments[0]}.log"
        environment = {**os.environ, **self.settings.environment()}
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*orrery(), *arguments], env=environment, stdout=file, stderr=file, stdin=subprocess.DEVNULL
            )
        self._processes.append(process)
        return process
