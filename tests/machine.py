"""A machine that an operator has started Orrery on."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import psutil

from standalone.api_client import ApiClient
from standalone.supervisor import orrery
from standalone.up import free_port
from tests.workers.conftest import until


class Machine:
    """An installation started by `orrery up`."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.home = home
        self.port = free_port()
        with (home / "up.log").open("w") as log:
            self.process = subprocess.Popen(
                [*orrery(), "up", *arguments, "--home", str(home), "--port", str(self.port)],
                env=environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            until(lambda: "Ctrl-C stops it" in self.output() or self.process.poll() is not None, seconds=180)
            assert self.process.poll() is None, self.output()
        except BaseException:
            self.close()
            raise

    def output(self) -> str:
        return (self.home / "up.log").read_text()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def password(self) -> str:
        """The first super admin's, which the first start prints."""
        printed = re.search(r"password: (\S+)", self.output())
        assert printed is not None, "only a first start prints it"
        return printed[1]

    def command(self, *arguments: str, succeeds: bool = True) -> str:
        done = subprocess.run(
            [*orrery(), *arguments, "--home", str(self.home)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode == 0) == succeeds, done.stdout + done.stderr
        return done.stdout if succeeds else done.stderr

    def api(self, token: str) -> ApiClient:
        return ApiClient(self.url, token)

    def workers(self) -> list[psutil.Process]:
        return [child for child in self.parts() if "worker" in child.cmdline()]

    def parts(self) -> list[psutil.Process]:
        """The processes that `up` supervises; the engines outlive it and do not count."""
        children = psutil.Process(self.process.pid).children()
        alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
        return [child for child in alive if child.name().startswith(("python", "orrery"))]

    def close(self) -> None:
        """Whatever the test found, nothing runs on."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        subprocess.run([*orrery(), "stop", "--home", str(self.home)], env=environment(), check=True)
        shutil.rmtree(self.home)

    def stop(self) -> None:
        """As Ctrl-C or a service manager would."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=40)
        assert code == 0, self.output()


def environment() -> dict[str, str]:
    """This process's, without any setting of Orrery."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ORRERY_")}
