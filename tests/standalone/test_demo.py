"""`orrery demo`, as a newcomer runs it: engines of its own, exit status 0 only if everything held."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest

from standalone.demo import SIGNS, Findings, Horoscope
from standalone.engines import running
from standalone.supervisor import orrery


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that the engines' account reaches."""
    folder = Path(tempfile.mkdtemp(prefix="orrery-demo-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_the_demo_holds_what_it_claims_and_again_at_once(home: Path) -> None:
    """The first one leaves an open breaker behind: the second begins without."""
    for _ in range(2):
        _demonstrate(home)


def _demonstrate(home: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ORRERY_")}
    done = subprocess.run(
        [*orrery(), "demo", "--home", str(home)], env=environment, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok  ") == 5
    assert "\x1b" not in done.stdout, "plain output where there is no terminal"
    for sign in SIGNS:
        assert sign in done.stdout
        with wave.open(str(home / "audio" / f"{sign}.wav")) as sound:
            assert sound.getnframes() / sound.getframerate() > 1
    assert running(home) is None, "the demo stops what it started"


def test_a_claim_that_does_not_hold_is_told() -> None:
    job = {"state": "succeeded", "model": "sandbox-text", "result": {"text": "the same"}}
    findings = Findings(horoscopes=[Horoscope(sign, job, after_swap=False) for sign in SIGNS], stale=1)
    assert [held for _, held in findings.checks()] == [False] * 5
