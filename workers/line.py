"""A line to Redis or Valkey for what jobs can do without: it never raises, and holds nobody up for long.

After a failure it is silent for a second. Then one question is tried, while the others go on doing without,
so that a server that hangs costs one thread half a second now and then, and not all of them.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

logger = logging.getLogger(__name__)

_CONNECTIONS = 16
_TIMEOUT_SECONDS = 0.5
_PAUSE_SECONDS = 1.0
_NOTICE_SECONDS = _PAUSE_SECONDS + _TIMEOUT_SECONDS  # until every process has noticed that it answers again

Answer = TypeVar("Answer")


class Line:
    """Connections to one server. Thread-safe.

    `outages` counts how often it has fallen silent.
    """

    def __init__(self, redis_url: str) -> None:
        connections = redis.BlockingConnectionPool.from_url(
            redis_url,
            max_connections=_CONNECTIONS,
            timeout=_TIMEOUT_SECONDS,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = redis.Redis.from_pool(connections)
        self._lock = threading.Lock()
        self._silent_until: float | None = None
        self._answers_since = -math.inf
        self.outages = 0

    @property
    def all_know(self) -> bool:
        """Whether it has answered for so long that no other process can still be going on by itself."""
        return self._silent_until is None and time.monotonic() - self._answers_since >= _NOTICE_SECONDS

    def ask(self, question: Callable[[redis.Redis], Answer]) -> Answer | None:
        """The answer, or None while the server does not answer."""
        if self._silent_until is not None and not self._may_try():
            return None
        try:
            answer = question(self._redis)
        except redis.RedisError as error:
            self._fell_silent(error)
            return None
        if self._silent_until is not None:
            self._answers_since = time.monotonic()
            self._silent_until = None
        return answer

    def script(self, text: str) -> Script:
        """A Lua script, to be called inside of a question."""
        return self._redis.register_script(text)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _may_try(self) -> bool:
        with self._lock:
            now = time.monotonic()
            if self._silent_until is not None and now < self._silent_until:
                return False
            self._silent_until = now + _PAUSE_SECONDS
            return True

    def _fell_silent(self, error: redis.RedisError) -> None:
        with self._lock:
            is_news = self._silent_until is None
            self._silent_until = time.monotonic() + _PAUSE_SECONDS
            self.outages += is_news
        if is_news:
            logger.warning(
                "Redis does not answer (%s): this process goes on by itself.", type(error).__name__
            )
