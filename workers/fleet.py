"""What worker processes tell each other of providers: breakers that open and close, and what rests.

One hash in Redis holds what holds now. Whoever has news writes it there at once, by a thread of its own,
and every process reads all of it twice a second; so what one learns the others know within a second, and no
call waits for it. Instants are the server's, so that the clocks of hosts do not matter. All of it may be
lost: each process keeps what it knows, and tells it again when it changes.

A probe's permit is a key that expires. It is refused while somebody else has it, or while the hash says
that the breaker opened again, so there is one probe in the whole fleet for each cool-down.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID, uuid4

import redis
from redis.client import Pipeline

from routing.breaker import CLOSED, OPEN, Breakers
from routing.cooldowns import Cooldown, Cooldowns, remembered_seconds
from workers.line import Line

logger = logging.getLogger(__name__)

_STATE = "orrery:fleet"
_POLL_SECONDS = 0.5
_SPREAD_SECONDS = 10.0  # that news remain after their end, for all to have read them
_BREAKER_SECONDS = 7200.0
_CLOSING_SECONDS = 1.0

# KEYS: state, probe. ARGV: field, what holds from now on, its milliseconds, the probe that this ends.
# An opening does not prolong one that still holds, and a pause never shortens another.
_TELL = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local told = cjson.decode(ARGV[2])
told.ends = now + math.floor(tonumber(ARGV[3]))
local before = redis.call('HGET', KEYS[1], ARGV[1])
if before and told.state ~= 'closed' then
    local kept = cjson.decode(before)
    if kept.state == told.state and kept.ends > now and (told.state == 'open' or kept.ends >= told.ends) then
        told = nil
    end
end
if told then redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(told)) end
if redis.call('GET', KEYS[2]) == ARGV[4] then redis.call('DEL', KEYS[2]) end
return 1"""

# KEYS: state, probe. ARGV: field, name, milliseconds.
_TAKE_PROBE = """
local time = redis.call('TIME')
local before = redis.call('HGET', KEYS[1], ARGV[1])
if before then
    local kept = cjson.decode(before)
    if kept.state == 'open' and kept.ends > time[1] * 1000 + math.floor(time[2] / 1000) then return 0 end
end
return redis.call('SET', KEYS[2], ARGV[2], 'NX', 'PX', ARGV[3]) and 1 or 0"""

# KEYS: probe. ARGV: name.
_GIVE_BACK = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 1"


@dataclass(frozen=True, slots=True)
class OpenBreaker:
    """A breaker that the fleet holds open: `seconds` until its next probe, and the process that opened it."""

    circuit_id: UUID
    seconds: float
    worker: str


@dataclass(frozen=True, slots=True)
class Sight:
    """What holds now for the whole fleet."""

    open: Mapping[UUID, OpenBreaker]
    resting: tuple[Cooldown, ...]


class Fleet:
    """The other worker processes, for this one's breakers and cool-downs.

    Implements `routing.breaker.Fleet` and `routing.cooldowns.Board`. `start()` it once both are there.

    Args:
        worker: this process, as people know it.
    """

    def __init__(self, line: Line, worker: str) -> None:
        self._line = line
        self._worker = worker
        self._lock = threading.Lock()
        self._news: dict[str, _News] = {}
        self._commands: deque[Callable[[Pipeline], object]] = deque(maxlen=10_000)
        self._seen: dict[str, str] = {}
        self._wake = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def start(self, breakers: Breakers, cooldowns: Cooldowns) -> None:
        """Begin to tell and to listen."""
        self._thread = threading.Thread(
            target=self._work_on, args=(breakers, cooldowns), name="fleet", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End, after what is to be told has been."""
        self._stopped = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=_CLOSING_SECONDS)

    def opened(self, circuit_id: UUID, seconds: float, probe: str) -> None:
        """Tell that a breaker opened."""
        self._tell(_breaker(circuit_id), {"state": OPEN}, seconds, _probe(circuit_id), probe)

    def closed(self, circuit_id: UUID, probe: str) -> None:
        """Tell that a breaker closed."""
        self._tell(_breaker(circuit_id), {"state": CLOSED}, 0.0, _probe(circuit_id), probe)

    def take_probe(self, circuit_id: UUID, seconds: float) -> str | None:
        """Ask for the only probe. Where nobody answers, this process makes its own."""
        name = f"{self._worker}/{uuid4()}"
        field, key = _breaker(circuit_id), _probe(circuit_id)
        milliseconds = round(seconds * 1000)
        taken = self._line.ask(
            lambda server: int(server.eval(_TAKE_PROBE, 2, _STATE, key, field, name, milliseconds))
        )
        return None if taken == 0 else name

    def gave_back(self, circuit_id: UUID, probe: str) -> None:
        """Let another probe be made."""
        self.soon(lambda pipeline: pipeline.eval(_GIVE_BACK, 1, _probe(circuit_id), probe))

    def rests(self, cooldown: Cooldown) -> None:
        """Tell what rests."""
        told = {**asdict(cooldown), "provider_id": str(cooldown.provider_id), "state": "rests"}
        del told["scope"], told["seconds"]
        self._tell(cooldown.scope, told, cooldown.seconds)

    def works(self, scope: str) -> None:
        """Tell that what rested works again."""
        self.soon(lambda pipeline: pipeline.hdel(_STATE, scope))

    def soon(self, command: Callable[[Pipeline], object]) -> None:
        """Have the background thread send a command, beside what else there is; it may be lost."""
        self._commands.append(command)
        self._wake.set()

    def _tell(
        self, field: str, told: Mapping[str, Any], seconds: float, key: str = "", probe: str = ""
    ) -> None:
        with self._lock:
            ends = time.monotonic() + seconds
            self._news[field] = _News({**told, "worker": self._worker}, ends, key or _STATE + ":none", probe)
        self._wake.set()

    def _work_on(self, breakers: Breakers, cooldowns: Cooldowns) -> None:
        poll_at = 0.0
        while not self._stopped:
            self._wake.clear()
            try:
                self._send()
                if time.monotonic() >= poll_at:
                    poll_at = time.monotonic() + _POLL_SECONDS
                    self._poll(breakers, cooldowns)
            except Exception:
                logger.exception("What the fleet tells was not understood.")
            self._wake.wait(max(0.0, poll_at - time.monotonic()))
        self._send()

    def _send(self) -> None:
        with self._lock:
            news = dict(self._news)
        commands: list[Callable[[Pipeline], object]] = []
        with suppress(IndexError):
            while True:
                commands.append(self._commands.popleft())
        if not news and not commands:
            return
        was_sent = self._line.ask(lambda server: _sent(server, news, commands))
        if was_sent:
            with self._lock:
                for field, told in news.items():
                    if self._news.get(field) is told:
                        del self._news[field]

    def _poll(self, breakers: Breakers, cooldowns: Cooldowns) -> None:
        found = self._line.ask(_read)
        if found is None:
            return
        now, state = found
        with self._lock:
            waiting = set(self._news)  # what is to be told is newer than what is read
        for field, text in state.items():
            if self._seen.get(field) != text and field not in waiting:
                _merge(field, _kept(text, now), breakers, cooldowns)
        for field in self._seen.keys() - state.keys():
            cooldowns.works(field)
        self._seen = {field: text for field, text in state.items() if field not in waiting}
        old = [field for field, text in state.items() if _is_old(_kept(text, now))]
        if old:
            self.soon(lambda pipeline: pipeline.hdel(_STATE, *old))


def look(line: Line) -> Sight:
    """What holds now, as far as Redis answers."""
    found = line.ask(_read)
    if found is None:
        return Sight({}, ())
    now, state = found
    kept = {field: _kept(text, now) for field, text in state.items()}
    breakers = [
        OpenBreaker(UUID(field.partition(":")[2]), max(0.0, one.seconds), one.told["worker"])
        for field, one in kept.items()
        if one.told["state"] == OPEN
    ]
    return Sight(
        open={one.circuit_id: one for one in breakers},
        resting=tuple(
            _cooldown(field, one)
            for field, one in kept.items()
            if one.told["state"] == "rests" and one.seconds > 0
        ),
    )


@dataclass(frozen=True, slots=True)
class _News:
    told: Mapping[str, Any]
    ends: float  # on the monotonic clock
    probe_key: str
    probe: str


@dataclass(frozen=True, slots=True)
class _Kept:
    told: Mapping[str, Any]
    seconds: float  # left


def _sent(
    server: redis.Redis, news: Mapping[str, _News], commands: list[Callable[[Pipeline], object]]
) -> bool:
    with server.pipeline(transaction=False) as pipeline:
        for field, told in news.items():
            milliseconds = max(0, round((told.ends - time.monotonic()) * 1000))
            pipeline.eval(
                _TELL, 2, _STATE, told.probe_key, field, json.dumps(dict(told.told)), milliseconds, told.probe
            )
        for command in commands:
            command(pipeline)
        pipeline.execute()
    return True


def _read(server: redis.Redis) -> tuple[float, dict[str, str]]:
    """The server's clock, in milliseconds, and all that holds."""
    with server.pipeline(transaction=False) as pipeline:
        pipeline.time()
        pipeline.hgetall(_STATE)
        (seconds, micro), state = pipeline.execute()
    return seconds * 1000 + micro / 1000, {field.decode(): text.decode() for field, text in state.items()}


def _kept(text: str, now: float) -> _Kept:
    told = json.loads(text)
    return _Kept(told, (told["ends"] - now) / 1000)


def _is_old(kept: _Kept) -> bool:
    if kept.told["state"] in (OPEN, CLOSED):
        return kept.seconds < -_BREAKER_SECONDS
    return kept.seconds < -_SPREAD_SECONDS - remembered_seconds(kept.told["error_class"])


def _merge(field: str, kept: _Kept, breakers: Breakers, cooldowns: Cooldowns) -> None:
    if kept.told["state"] in (OPEN, CLOSED):
        breakers.merge(UUID(field.partition(":")[2]), kept.told["state"], kept.seconds)
    elif kept.seconds > -remembered_seconds(kept.told["error_class"]):
        cooldowns.merge(_cooldown(field, kept))


def _cooldown(field: str, kept: _Kept) -> Cooldown:
    told = kept.told
    return Cooldown(
        scope=field,
        error_class=told["error_class"],
        seconds=kept.seconds,
        times=told["times"],
        provider_id=UUID(told["provider_id"]),
        model=told["model"],
    )


def _breaker(circuit_id: UUID) -> str:
    return f"breaker:{circuit_id}"


def _probe(circuit_id: UUID) -> str:
    return f"orrery:probe:{circuit_id}"
