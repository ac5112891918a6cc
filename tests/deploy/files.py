"""compose.yaml, the Dockerfile and the locks, read as data."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.txt", "requirements-server.txt", "requirements-dev.txt")

_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<operator>[-?])(?P<rest>[^}]*))?\}")
_PIN = re.compile(r"^(?P<name>[\w.-]+)(?:\[[\w,]+\])?==(?P<version>[^\s;]+)")


@cache
def compose() -> dict[str, Any]:
    """compose.yaml as it is written, its variables not filled in."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return loaded


@cache
def project() -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def services() -> dict[str, dict[str, Any]]:
    """All services by name."""
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def own_services() -> dict[str, dict[str, Any]]:
    """The services that run our image."""
    return {name: service for name, service in services().items() if "build" in service}


def command(service: Mapping[str, Any]) -> list[str]:
    """A service's arguments of `orrery`, its variables at their defaults."""
    return [filled(str(argument)) for argument in service["command"]]


def filled(text: str) -> str:
    """The text with every `${NAME:-default}` filled in. Raises ValueError for a variable without default."""

    def default(match: re.Match[str]) -> str:
        if match["operator"] != "-":
            raise ValueError(f"{match['name']} has no default")
        return str(match["rest"])

    return _VARIABLE.sub(default, text)


def variables(text: str) -> dict[str, str | None]:
    """Names of the variables in a text, each with its operator: `-` a default, `?` must be set."""
    return {match["name"]: match["operator"] for match in _VARIABLE.finditer(text)}


def seconds(duration: str) -> float:
    """A compose duration such as `1m30s`."""
    parts = re.findall(r"(\d+)(s|m|h)", duration)
    assert "".join(map("".join, parts)) == duration, f"{duration!r} is no duration"
    return sum(float(number) * {"s": 1, "m": 60, "h": 3600}[unit] for number, unit in parts)


@dataclass(frozen=True)
class Stage:
    """One stage of the Dockerfile: `(instruction, arguments)` in order."""

    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        """The arguments of each such instruction."""
        return [arguments for name, arguments in self.steps if name == instruction]

    def one(self, instruction: str) -> str:
        """The arguments of the only such instruction."""
        [arguments] = self.all(instruction)
        return arguments

    def environment(self) -> dict[str, str]:
        """What its ENV instructions set."""
        pairs = " ".join(self.all("ENV")).split()
        return dict(pair.split("=", 1) for pair in pairs)


@cache
def stages() -> list[Stage]:
    """The Dockerfile's stages; the last one is the image."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    found: list[Stage] = []
    for line in "\n".join(lines).replace("\\\n", "").splitlines():
        instruction, _, arguments = line.strip().partition(" ")
        if instruction == "FROM":
            found.append(Stage(base=arguments.split()[0]))
        elif instruction:
            found[-1].steps.append((instruction, " ".join(arguments.split())))
    return found


@dataclass(frozen=True)
class Pin:
    """One package of a lock: version, hashes, and the packages it is there for."""

    version: str
    hashes: int
    wanted_by: tuple[str, ...]


def pins(lock: str) -> dict[str, Pin]:
    """A lock's packages. Every line that begins one must be a pin."""
    found = {}
    for entry in re.split(r"\n(?=\S)", (ROOT / lock).read_text().strip()):
        pin = _PIN.match(entry)
        assert pin is not None, f"{lock}: {entry.splitlines()[0]!r} is no pin"
        wanted_by = re.findall(r"^    #(?: via| {2}) +(\S.*)$", entry, re.MULTILINE)
        found[pin["name"]] = Pin(pin["version"], entry.count("--hash=sha256:"), tuple(wanted_by))
    return found
