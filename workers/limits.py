"""Limits of providers, kept by all workers together: one script in Redis, one round trip for each limited
call.

The script has the only clock. It looks at requests, tokens and calls at a time together, and takes of all
or of none. Whoever is refused is told when to come back: calls without another route get places one after
the other, a quarter closer than the limit allows, so that thousands of waiting jobs neither come all at
once nor leave the limit unused.

Tokens are reserved by estimate; by how much a call differed is carried in with the process's next one. A
call that ended gives its place free in the background; one whose process died loses it by expiry. Where
Redis does not answer, a process keeps to its share of the limits by itself, and goes on doing so beside the
script until all others must have noticed that it answers again: who came back first would else use the whole
while the rest still use their shares. A server that lost everything, or that somebody comes back to, starts
without any burst: what was called meanwhile it does not know.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID, uuid4

from redis.client import Pipeline

from routing import limits
from routing.limits import ProcessLimits, Rate, Ticket
from routing.values import Call, Provider
from workers.line import Line

_GRACE_SECONDS = 5.0  # that a call may hold its place beyond its deadline
_FIRST_HOLD_SECONDS = 1.0  # how long a call is thought to take before one has ended
_MILLION = 1_000_000

# Times are microseconds. KEYS: bucket (r, t: when requests and tokens are used up; w: the line's end), calls.
# ARGV: interval and burst of requests, the same of tokens (0: unlimited), tokens, tokens carried in,
# calls at a time (0: any), call, how long it may hold its place, how long calls hold theirs on average,
# 1 = has no other route, 1 = burst unknown, longest wait.
_TAKE = """
local a = {}
for i, value in ipairs(ARGV) do a[i] = tonumber(value) end
local every, burst, token_every, token_burst, tokens, carried, most = a[1], a[2], a[3], a[4], a[5], a[6], a[7]
local call, lives, holds, is_last, anew, longest = ARGV[8], a[9], a[10], a[11], a[12], a[13]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local kept = redis.call('HMGET', KEYS[1], 'r', 't', 'w')
local used, token_used, line = tonumber(kept[1]), tonumber(kept[2]), tonumber(kept[3]) or 0
local spare = math.max(0, token_burst - tokens) * token_every
if not used or anew == 1 then used = math.max(used or 0, now + (burst - 1) * every) end
if not token_used or anew == 1 then token_used = math.max(token_used or 0, now + spare) end
token_used = token_used + carried * token_every

local ready, step = now, 0
if every > 0 then ready, step = used - (burst - 1) * every, every end
if token_every > 0 and token_used - spare > ready then
    ready, step = token_used - spare, tokens * token_every
end
if most > 0 then
    redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
    if redis.call('ZCARD', KEYS[2]) >= most and now + holds / most > ready then
        ready, step = now + holds / most, holds / most
    end
end

local wait = 0
if ready <= now then
    used = math.max(used, now) + every
    token_used = math.max(token_used, now) + tokens * token_every
    if most > 0 then
        redis.call('ZADD', KEYS[2], now + lives, call)
        redis.call('PEXPIRE', KEYS[2], math.ceil(lives / 1000) + 1000)
    end
else
    if is_last == 1 then
        ready = math.max(ready, line)
        line = math.min(ready + step / 1.25, now + longest)
    end
    wait = math.min(ready - now, longest)
end
local text = '%.0f'
redis.call('HSET', KEYS[1], 'r', text:format(used), 't', text:format(token_used), 'w', text:format(line))
redis.call('PEXPIRE', KEYS[1], 3600000)
return math.ceil(wait)"""


class SharedLimits:
    """Keeps to providers' limits together with all other processes. Implements `routing.limits.Limits`.

    Args:
        soon: has a command sent in the background.
        minute: seconds; tests have shorter ones.
    """

    def __init__(
        self,
        line: Line,
        soon: Callable[[Callable[[Pipeline], object]], None],
        *,
        minute: float = limits.MINUTE,
    ) -> None:
        self._line = line
        self._soon = soon
        self._minute = minute
        self._processes = 1
        self._script = line.script(_TAKE)
        self._lock = threading.Lock()
        self._carried: defaultdict[UUID, int] = defaultdict(int)
        self._holds: dict[UUID, float] = {}
        self._known_outages: dict[UUID, int] = {}
        self._own = ProcessLimits(minute=minute)
        self._own_since = 0  # the outage it was made for

    def share(self, processes: int) -> None:
        """How many processes there are, for the time when nobody can be asked."""
        with self._lock:
            self._processes = self._own.processes = max(1, processes)

    def take(self, call: Call, *, seconds: float, is_last: bool) -> Ticket:
        """Leave for a call of a limited provider. Raises RateWait."""
        provider = call.route.provider
        reserved = limits.expected_tokens(call) if provider.tokens_per_minute else 0
        name = str(uuid4())
        share = None if self._line.all_know else self._alone().take(call, seconds=seconds, is_last=is_last)
        wait = self._asked(provider, reserved, name, seconds, is_last)
        if wait is None:
            return share or self._alone().take(call, seconds=seconds, is_last=is_last)
        if wait > 0:
            if share:
                share.ended(0)
            raise limits.wait(provider, wait)
        return _Place(self, provider, name, reserved, time.monotonic(), share)

    def ended(self, provider: Provider, name: str, *, difference: int, seconds: float) -> None:
        """A call is over that took so long, and used `difference` more tokens than were reserved."""
        if difference and provider.tokens_per_minute:
            with self._lock:
                self._carried[provider.id] += difference
        if provider.max_concurrency:
            before = self._holds.get(provider.id, seconds)
            self._holds[provider.id] = before + 0.1 * (seconds - before)
            self._soon(lambda pipeline: pipeline.zrem(_calls(provider), name))

    def _asked(
        self, provider: Provider, tokens: int, name: str, seconds: float, is_last: bool
    ) -> float | None:
        """Seconds to wait, 0 = none; None where nobody answers."""
        requests = limits.request_rate(provider, minute=self._minute)
        per_token = limits.token_rate(provider, minute=self._minute)
        with self._lock:
            carried = self._carried.pop(provider.id, 0)
            outages = self._line.outages
            anew = self._known_outages.get(provider.id, 0) != outages
        values: list[str | int] = [
            *_microseconds(requests),
            *_microseconds(per_token),
            tokens,
            carried,
            provider.max_concurrency or 0,
            name,
            round((seconds + _GRACE_SECONDS) * _MILLION),
            round(self._holds.get(provider.id, _FIRST_HOLD_SECONDS) * _MILLION),
            int(is_last),
            int(anew),
            round(limits.LONGEST_WAIT_SECONDS * _MILLION),
        ]
        keys = [_bucket(provider), _calls(provider)]
        wait = self._line.ask(lambda server: int(self._script(keys, values, server)))
        if wait is None:
            return None
        self._known_outages[provider.id] = outages
        return wait / _MILLION

    def _alone(self) -> ProcessLimits:
        with self._lock:
            if self._own_since != self._line.outages:
                self._own_since = self._line.outages
                self._own = ProcessLimits(minute=self._minute)
                self._own.processes = self._processes
            return self._own


@dataclass(frozen=True, slots=True)
class _Place:
    limits: SharedLimits
    provider: Provider
    name: str
    reserved: int
    since: float
    share: Ticket | None

    def ended(self, tokens: int | None) -> None:
        if self.share:
            self.share.ended(tokens)
        difference = 0 if tokens is None else tokens - self.reserved
        seconds = time.monotonic() - self.since
        self.limits.ended(self.provider, self.name, difference=difference, seconds=seconds)


def _microseconds(rate: Rate | None) -> tuple[str, int]:
    return ("0", 0) if rate is None else (f"{rate.interval * _MILLION:.3f}", rate.burst)


def _bucket(provider: Provider) -> str:
    return f"orrery:limit:{provider.id}"


def _calls(provider: Provider) -> str:
    return f"orrery:calls:{provider.id}"
