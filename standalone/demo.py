"""`orrery demo`: the main job, offline, with a hot swap and a provider failure in the middle.

It does what an operator would, over HTTP: configure, enqueue, swap, wait. What it claims it has measured:
which jobs are stale is decided by the database's clock, and audio counts only if it plays.
"""

from __future__ import annotations

import io
import shutil
import time
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from standalone import demo_report
from standalone.api_client import ApiClient
from standalone.machine import Step
from standalone.supervisor import TEND_SECONDS
from standalone.up import Layout, Running, free_port, up
from store.database import Role, conninfo
from store.settings import Settings

SIGNS = (
    "aries", "taurus", "gemini", "cancer", "leo", "virgo",
    "libra", "scorpio", "sagittarius", "capricorn", "aquarius", "pisces",
)  # fmt: skip
TEXT, SPEECH = "daily_zodiac_text", "daily_zodiac_tts"

_BEFORE, _AFTER, _BACKUP = "sandbox-text", "sandbox-text-fine", "sandbox-text-backup"
_AFTERWARDS = 4  # texts that are enqueued after the swap
_LATENCY_SECONDS = 0.4  # of the sandbox during the swap, so that jobs run while the assignment changes
_THREADS = 4


@dataclass(frozen=True, slots=True)
class Horoscope:
    """One sign of the demo: its text job, its speech job, and whether the text ran before the swap."""

    sign: str
    text: dict[str, Any]
    after_swap: bool
    speech: dict[str, Any] | None = None
    audio: Path | None = None
    audio_seconds: float = 0.0


@dataclass(slots=True)
class Findings:
    """What the demo saw, and what of it must hold."""

    horoscopes: list[Horoscope] = field(default_factory=list)
    swap_version: int = 0
    stale: int = 0
    failover: list[dict[str, Any]] = field(default_factory=list)
    open_breaker_saved: int = 0
    seconds: float = 0.0
    home: Path = Path()

    def checks(self) -> list[tuple[str, bool]]:
        """Every claim of the demo and whether it held."""
        texts = [h.text["result"]["text"] for h in self.horoscopes if h.text["state"] == "succeeded"]
        models = {h.text["model"] for h in self.horoscopes}
        spoken = sum(h.audio_seconds > 1 for h in self.horoscopes)
        return [
            ("12 horoscopes, no two alike", len(set(texts)) == len(SIGNS)),
            ("12 audio files, each longer than 1 s", spoken == len(SIGNS)),
            ("both models served, before and after the swap", models == {_BEFORE, _AFTER}),
            ("0 stale jobs after the swap", self.stale == 0),
            (
                "provider down: every job succeeded through the backup",
                len(self.failover) == len(SIGNS)
                and all(job["state"] == "succeeded" and job["model"] == _BACKUP for job in self.failover),
            ),
        ]


def run_demo(settings: Settings, *, on_step: Step, serve: bool) -> bool:
    """Run the demo and print its report; returns whether all of it held."""
    console = demo_report.console()
    began = time.monotonic()
    layout = Layout(port=free_port(), workers=2, threads=_THREADS, sandbox=True, forgets=True)
    own = {"artifacts": None, "database_url": None, "redis_url": None, "log_level": "WARNING"}
    demo = settings.model_copy(update=own)
    with up(demo, layout, on_step=on_step) as running, running.api() as api:
        findings = _run(running, api, on_step)
        findings.seconds = time.monotonic() - began
        on_step("")
        demo_report.show(findings, console)
        if serve:
            console.print(f"Serving at {running.api_url} until Ctrl-C.")
            _keep(running)
    return all(held for _, held in findings.checks())


def _run(running: Running, api: ApiClient, on_step: Step) -> Findings:
    findings = Findings(home=running.settings.home)
    assert running.sandbox_url is not None, "the demo's layout has a sandbox"  # noqa: S101
    with ApiClient(running.sandbox_url) as sandbox:
        sandbox.call("DELETE", "/_sandbox/faults")
        models = {model["model_id"]: model["id"] for model in api.pages("/api/v1/models")}
        _assign(api, models[_BEFORE], models[_BACKUP])
        on_step("12 horoscopes, each then spoken; the model is swapped while they run")
        sandbox.call("POST", "/_sandbox/faults", _fault("latency", seconds=_LATENCY_SECONDS))
        _swap_mid_run(running, api, models, findings)
        sandbox.call("DELETE", "/_sandbox/faults")
        on_step("the recordings come in")
        _collect_audio(api, findings)
        on_step("the provider goes down, 12 more horoscopes")
        sandbox.call("POST", "/_sandbox/faults", _fault("status", protocol="openai", status=503))
        tomorrow = date.today() + timedelta(days=1)
        findings.failover = _finished(api, [_enqueue_text(api, sign, tomorrow) for sign in SIGNS])
        attempts = [attempt for job in findings.failover for attempt in job["attempts"]]
        findings.open_breaker_saved = sum(attempt["breaker"] == "open" for attempt in attempts)
        sandbox.call("DELETE", "/_sandbox/faults")
    return findings


def _swap_mid_run(running: Running, api: ApiClient, models: dict[str, str], findings: Findings) -> None:
    """Enqueue 12 texts, swap the model once a few have started, and see which version each job ran with.

    The last four are enqueued once the swap was answered: where the machine is slow, all others have started.
    """
    ids = {_enqueue_chain(api, sign): sign for sign in SIGNS[:-_AFTERWARDS]}
    with psycopg.connect(conninfo(running.settings.database(), Role.CLIENT), autocommit=True) as db:
        _wait(lambda: _started(db, list(ids)) >= len(SIGNS) // 3)
        _assign(api, models[_AFTER], models[_BACKUP])
        row = db.execute("SELECT now(), (SELECT version FROM config_state)").fetchone()
        assert row is not None, "a SELECT without FROM has a row"  # noqa: S101
        answered, findings.swap_version = row
        ids |= {_enqueue_chain(api, sign): sign for sign in SIGNS[-_AFTERWARDS:]}
        jobs = _finished(api, list(ids))
        claims = db.execute("SELECT id::text, started_at FROM job_history WHERE id = ANY(%s)", [list(ids)])
        claimed: dict[str, datetime] = dict(claims.fetchall())
    for job in sorted(jobs, key=lambda job: claimed[job["id"]]):
        after = claimed[job["id"]] > answered
        findings.horoscopes.append(Horoscope(ids[job["id"]], job, after_swap=after))
        findings.stale += after and job["config_version"] < findings.swap_version


def _collect_audio(api: ApiClient, findings: Findings) -> None:
    """Wait for the second step of each chain, and keep its audio as `<home>/audio/<sign>.wav`."""
    folder = findings.home / "audio"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    chains = [
        api.call("GET", f"/api/v1/jobs/{horoscope.text['id']}")["chain"] for horoscope in findings.horoscopes
    ]
    ids = [link["id"] for chain in chains for link in chain if link["feature"] == SPEECH]
    spoken = []
    for horoscope, job in zip(findings.horoscopes, _finished(api, ids), strict=True):
        if job["state"] != "succeeded":
            spoken.append(replace(horoscope, speech=job))
            continue
        path = folder / f"{horoscope.sign}.wav"
        path.write_bytes(api.download(job["result"]["artifact_url"]))
        spoken.append(replace(horoscope, speech=job, audio=path, audio_seconds=_seconds(path.read_bytes())))
    findings.horoscopes = spoken


def _assign(api: ApiClient, model: str, backup: str) -> None:
    assignment = next(a for a in api.pages("/api/v1/feature-assignments") if a["feature_name"] == TEXT)
    body = {"model_id": model, "backup_model_id": backup}
    api.call("PATCH", f"/api/v1/feature-assignments/{assignment['id']}", body)


def _enqueue_chain(api: ApiClient, sign: str) -> str:
    """A text that is spoken once it is written."""
    speech = {"feature_name": SPEECH, "input_map": {"text": "result.text", "language": "input.language"}}
    return _enqueue_text(api, sign, date.today(), then=[speech])


def _enqueue_text(api: ApiClient, sign: str, day: date, **members: Any) -> str:
    input_ = {"sign": sign, "language": "en", "date": day.isoformat()}
    job = api.call("POST", "/api/v1/jobs", {"feature": TEXT, "input": input_, **members})
    return str(job["id"])


def _finished(api: ApiClient, ids: Sequence[str]) -> list[dict[str, Any]]:
    """The jobs, once they have ended. Raises TimeoutError where one does not within a minute."""
    jobs = [api.call("GET", f"/api/v1/jobs/{job_id}?wait=60") for job_id in ids]
    late = [job["id"] for job in jobs if job["finished_at"] is None]
    if late:
        raise TimeoutError(f"{len(late)} of {len(jobs)} jobs did not end within a minute: {late[0]} …")
    return jobs


def _started(db: psycopg.Connection[Any], ids: list[str]) -> int:
    waiting = db.execute(
        "SELECT count(*) FROM jobs WHERE state = 'queued' AND id = ANY(%s)", [ids]
    ).fetchone()
    return len(ids) - (waiting[0] if waiting else 0)


def _wait(condition: Callable[[], bool], *, seconds: float = 30) -> None:
    deadline = datetime.now(UTC) + timedelta(seconds=seconds)
    while not condition():
        if datetime.now(UTC) > deadline:
            raise TimeoutError(f"The workers did not start within {seconds:g} s.")
        time.sleep(0.01)


def _fault(mode: str, *, protocol: str = "*", **values: Any) -> dict[str, Any]:
    return {"protocol": protocol, "mode": mode, **values}


def _seconds(audio: bytes) -> float:
    with wave.open(io.BytesIO(audio)) as sound:
        return float(sound.getnframes() / sound.getframerate())


def _keep(running: Running) -> None:
    try:
        while True:
            running.supervisor.tend()
            time.sleep(TEND_SECONDS)
    except KeyboardInterrupt:
        return
