"""The prober of a worker process: asks providers that nobody calls whether they would answer.

What is due is taken by one statement, so that of all processes one asks. A probe is the protocol's free
credential check: it costs nothing, and says little of the models, so breakers and cool-downs learn nothing
from it. What it found is shown; a refused key is an alert.
"""

from __future__ import annotations

from uuid import UUID

from routing import probing
from routing.errors import AuthFailed
from routing.probing import Probed
from routing.transport import Transport
from store.database import Pool
from store.vault import Vault, VaultError
from workers import alerts
from workers.alerts import Alert
from workers.rounds import Rounds

_LOOK_SECONDS = 10.0


class Prober:
    """One process's prober. `pause_seconds`: after a call or a probe of a provider; 0: it never probes."""

    def __init__(self, pool: Pool, transport: Transport, vault: Vault, *, pause_seconds: float) -> None:
        self._pool = pool
        self._transport = transport
        self._vault = vault
        self._pause_seconds = pause_seconds
        self._rounds = Rounds(
            "prober", self.turn, pause_seconds=min(_LOOK_SECONDS, pause_seconds), begins_late=True
        )

    def start(self) -> None:
        """Begin."""
        if self._pause_seconds:
            self._rounds.start()

    def stop(self) -> None:
        """End, after the provider it is at."""
        self._rounds.stop(wait=False)

    def turn(self) -> int:
        """Probe what is due; returns how many providers were taken."""
        with self._pool.connection() as db:
            taken = [row["provider_id"] for row in db.execute(_TAKE, {"pause": self._pause_seconds})]
        for provider_id in taken:
            if self._rounds.is_over:
                break
            self._probe(provider_id)
        return len(taken)

    def _probe(self, provider_id: UUID) -> None:
        slug = ""
        try:
            with self._pool.connection() as db:
                found = probing.stored(db, self._vault, provider_id)
            if found is None:
                return
            provider, key = found
            slug, result = provider.slug, probing.probed(self._transport, provider, key)
        except VaultError as error:
            result = Probed(ok=False, status=None, latency_ms=0, message=str(error))
        with self._pool.connection() as db, db.transaction():
            values = {"id": provider_id, "ok": result.ok, "ms": result.latency_ms}
            db.execute(_SETTLE, {**values, "error": None if result.ok else result.message[:1000]})
            if result.error_class == AuthFailed.error_class:
                alerts.raise_all(db, [_refused(provider_id, slug, result)])


def _refused(provider_id: UUID, slug: str, result: Probed) -> Alert:
    said = result.message[:500].rstrip(". ")
    message = f"{slug} refuses the key: {said}. Store a valid one."
    return Alert("key_refused", "providers", str(provider_id), message)


# A new provider is as one that was just called: who stores it tries it.
_TAKE = """
INSERT INTO provider_health AS kept (provider_id, last_probe_at)
SELECT id, now() FROM ai_providers LEFT JOIN provider_health ON provider_id = id
WHERE is_active AND greatest(created_at, last_success_at, last_error_at, last_probe_at)
    <= now() - %(pause)s * interval '1 second'
ORDER BY id
ON CONFLICT (provider_id) DO UPDATE SET last_probe_at = now()
WHERE coalesce(greatest(kept.last_success_at, kept.last_error_at, kept.last_probe_at), '-infinity')
    <= now() - %(pause)s * interval '1 second'
RETURNING provider_id"""

_SETTLE = """
UPDATE provider_health SET last_probe_ok = %(ok)s, last_probe_ms = %(ms)s, last_probe_error = %(error)s
WHERE provider_id = %(id)s"""
