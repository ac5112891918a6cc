"""Failed logins slow down the next: of an account from a network, of a network, and of an account.

    limit     counts failures                                free   then waits           half-life
    PAIR      of an account from one network                  5     2 s, 4 s, ... 5 min   1 h
    NETWORK   of anybody from one network                    20     1 s, 2 s, ... 5 min   1 h
    ACCOUNT   of an account from networks it does not know   20     1 s, 2 s, ... 1 min   1 h
    CODE      of second factors' codes, behind the password   5     30 s, ... 1 h         1 day

Why a stranger locks nobody out for ever: waits are bounded and failures fade. What strangers do elsewhere
counts in ACCOUNT alone, which concerns neither the networks that the person has logged in from before nor
open sessions; elsewhere the person waits a minute at most, and then races the stranger for the turn. CODE
counts only who has the password, and is another one for networks that are known. Why guessing does not pay:
at these limits an account takes some 1,500 guesses a day from any number of strange networks, or 300 from
one; and a stolen password takes 24 codes a day, of a million.

An attempt is counted as failed before it is looked at, in one transaction, so that a thousand at once are no
more than one after the other. Who is told to wait was not counted and not looked at.

A network is an IPv4 address, or the /64 that one customer has of IPv6.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg.rows import DictRow

from admin_api.refusals import TooOften
from store.database import Connections


@dataclass(frozen=True, slots=True)
class Limit:
    """How failures become waits. `first`, `longest` and `half_life` in seconds."""

    name: str
    free: int
    first: float
    longest: float
    half_life: float = 3600

    def wait(self, failures: float) -> float:
        """Seconds until the next attempt after this many failures."""
        beyond = failures - self.free
        return 0.0 if beyond <= 0 else float(min(self.first * 2 ** min(beyond - 1, 60), self.longest))


PAIR = Limit("pair", free=5, first=2, longest=300)
NETWORK = Limit("network", free=20, first=1, longest=300)
ACCOUNT = Limit("account", free=20, first=1, longest=60)
CODE = Limit("code", free=5, first=30, longest=3600, half_life=86_400)


@dataclass(frozen=True, slots=True)
class Throttle:
    """What is counted under one limit."""

    limit: Limit
    of: tuple[str, ...]

    @property
    def key(self) -> bytes:
        """What the database knows it by; people type passwords where the address belongs."""
        parts = (self.limit.name, *self.of)
        return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).digest()


def network_of(address: str | None) -> str:
    """The network of a client's address; `unknown` for all that have none."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((int(found), 64), strict=False))
    return str(found)


def for_password(email: str, network: str, *, is_known: bool) -> list[Throttle]:
    """What an attempt with a password counts in; `is_known`: the person has logged in from there before."""
    found = [Throttle(PAIR, (email, network)), Throttle(NETWORK, (network,))]
    return found if is_known else [*found, Throttle(ACCOUNT, (email,))]


def for_code(admin_id: object, network: str, *, is_known: bool) -> list[Throttle]:
    """What an attempt with a second factor's code counts in."""
    return [Throttle(CODE, (str(admin_id), network if is_known else ""))]


_ENTER = """
INSERT INTO login_throttles (key) SELECT * FROM unnest(%(keys)s::bytea[]) AS key ORDER BY key
ON CONFLICT (key) DO NOTHING"""
_LOOK = """
SELECT key, failures, extract(epoch FROM clock_timestamp() - failed_at)::float8 AS age,
       extract(epoch FROM blocked_until - clock_timestamp())::float8 AS wait
FROM login_throttles WHERE key = ANY (%(keys)s) ORDER BY key FOR UPDATE"""
_COUNT = """
UPDATE login_throttles
SET failures = counted.failures, failed_at = clock_timestamp(),
    blocked_until = clock_timestamp() + make_interval(secs => counted.wait)
FROM unnest(%(keys)s::bytea[], %(failures)s::float8[], %(waits)s::float8[]) AS counted (key, failures, wait)
WHERE login_throttles.key = counted.key"""
_FORGIVE = """
WITH locked AS (SELECT key FROM login_throttles WHERE key = ANY (%(keys)s) ORDER BY key FOR UPDATE)
UPDATE login_throttles SET failures = greatest(failures - 1, 0), blocked_until = clock_timestamp()
FROM locked WHERE login_throttles.key = locked.key"""
_FORGET = "DELETE FROM login_throttles WHERE key = ANY (%(keys)s)"
_TIDY = """
DELETE FROM login_throttles WHERE key IN (
    SELECT key FROM login_throttles WHERE failed_at < now() - interval '10 days' LIMIT 20
    FOR UPDATE SKIP LOCKED)"""


def count(pool: Connections, throttles: Sequence[Throttle]) -> None:
    """Count an attempt as failed. Raises TooOften where it comes too early; then it is not counted."""
    limits: Mapping[bytes, Limit] = {throttle.key: throttle.limit for throttle in throttles}
    keys = sorted(limits)
    with pool.connection() as db, db.transaction():
        db.execute(_TIDY)
        rows: list[DictRow] = []
        while len(rows) < len(keys):  # a login that succeeds meanwhile forgets a key that was there
            db.execute(_ENTER, {"keys": keys})
            rows = db.execute(_LOOK, {"keys": keys}).fetchall()
        wait = max(row["wait"] for row in rows)
        if wait > 0:
            raise TooOften(math.ceil(wait))
        failures = [
            row["failures"] * 0.5 ** (max(row["age"], 0) / limits[row["key"]].half_life) + 1 for row in rows
        ]
        waits = [limits[row["key"]].wait(count) for row, count in zip(rows, failures, strict=True)]
        db.execute(_COUNT, {"keys": [row["key"] for row in rows], "failures": failures, "waits": waits})


def forgive(pool: Connections, throttles: Sequence[Throttle], *, forget: Sequence[Limit] = ()) -> None:
    """Take back what `count` counted: the attempt did not fail. Earlier failures under `forget` go, too."""
    with pool.connection() as db, db.transaction():
        db.execute(_FORGIVE, {"keys": [each.key for each in throttles if each.limit not in forget]})
        db.execute(_FORGET, {"keys": [each.key for each in throttles if each.limit in forget]})
