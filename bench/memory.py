"""How much memory a process holds. Linux."""

from __future__ import annotations

from pathlib import Path


def resident_mb(pid: int) -> float:
    """The resident memory of the process now (`VmRSS`), in 10^6 bytes."""
    return _line(pid, "VmRSS")


def peak_mb(pid: int) -> float:
    """The most that it has held since it began (`VmHWM`), in 10^6 bytes."""
    return _line(pid, "VmHWM")


def _line(pid: int, wanted: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name == wanted:
            return int(value.split()[0]) * 1024 / 1e6
    raise ProcessLookupError(f"Process {pid} has ended.")
