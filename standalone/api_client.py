"""The admin API from this machine's own shell: JSON over HTTP, as any other client would."""

from __future__ import annotations

import http.client
import select
import time
from typing import Any
from urllib.parse import urlsplit

import orjson


class ApiError(Exception):
    """The API refused; `problem` is its answer, the message its detail and fields."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status = status
        self.problem = problem
        fields = "; ".join(f"{e.get('field')}: {e.get('message')}" for e in problem.get("errors", []))
        detail = problem.get("detail") or problem.get("title") or "no detail"
        super().__init__(f"{status}: {detail}{f' ({fields})' if fields else ''}")


class ApiClient:
    """A client of one base URL. Not thread-safe: it keeps one connection.

    Args:
        url: such as `http://127.0.0.1:8000`.
        token: bearer token, or None for routes without.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout: float = 70) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=timeout)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def __enter__(self) -> ApiClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def call(self, method: str, path: str, body: object = None) -> Any:
        """The JSON answer (None where it is empty).

        Raises: ApiError for a 4xx or 5xx answer; OSError or http.client.HTTPException where none came. A
        write may have been carried out then.
        """
        status, payload = self._exchange(method, path, body)
        answer = orjson.loads(payload) if payload else None
        if status >= 400:
            raise ApiError(status, answer if isinstance(answer, dict) else {"detail": str(answer)})
        return answer

    def download(self, path: str) -> bytes:
        """The body of a GET as it is. Raises ApiError for a 4xx or 5xx answer."""
        status, payload = self._exchange("GET", path, None)
        if status >= 400:
            raise ApiError(status, orjson.loads(payload or b"{}"))
        return payload

    def pages(self, path: str) -> list[dict[str, Any]]:
        """All items of a list, over all its pages."""
        items: list[dict[str, Any]] = []
        cursor = ""
        while True:
            mark = "&" if "?" in path else "?"
            page = self.call("GET", f"{path}{mark}limit=200{cursor}")
            items += page["items"]
            if page["next_cursor"] is None:
                return items
            cursor = f"&cursor={page['next_cursor']}"

    def wait_until_ready(self, path: str = "/readyz", *, seconds: float = 30) -> None:
        """Poll `path` until it answers 200. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if self._exchange("GET", path, None)[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise TimeoutError(f"The API did not become ready within {seconds:g} s.")

    def _exchange(self, method: str, path: str, body: object) -> tuple[int, bytes]:
        """One request and its answer. Servers close connections that idle: such a one is replaced, and a GET
        that met its end in the middle is sent once more."""
        if self._was_closed():
            self._connection.close()  # `request` opens another
        is_reused = self._connection.sock is not None
        try:
            return self._sent(method, path, body)
        except (ConnectionError, http.client.RemoteDisconnected):
            if method != "GET" or not is_reused:
                raise
        return self._sent(method, path, body)

    def _was_closed(self) -> bool:
        """Whether the server has hung up: between two requests it has nothing else to say."""
        sock = self._connection.sock
        if sock is None:
            return False
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))

    def _sent(self, method: str, path: str, body: object) -> tuple[int, bytes]:
        headers = dict(self._headers)
        encoded = None
        if body is not None:
            encoded = orjson.dumps(body)
            headers["Content-Type"] = "application/json"
        try:
            self._connection.request(method, path, encoded, headers)
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()  # the next call opens another
            raise
