"""A provider of the OpenAI protocol that says when it speaks: each text is the time at which it was sent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORDS = 5
_THINKING_SECONDS = 0.15
_PAUSE_SECONDS = 0.02


@contextmanager
def announcer() -> Iterator[str]:
    """Run it; yields the base URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Answer with a stream."""
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self._say({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        time.sleep(_THINKING_SECONDS)
        for _ in range(WORDS):
            self._say({"choices": [{"index": 0, "delta": {"content": f"{time.time_ns()} "}}]})
            time.sleep(_PAUSE_SECONDS)
        usage = {"prompt_tokens": 9, "completion_tokens": WORDS, "total_tokens": 9 + WORDS}
        self._say({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _say(self, chunk: dict[str, object]) -> None:
        named = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "announcer", **chunk}
        self.wfile.write(b"data: " + json.dumps(named).encode() + b"\n\n")
        self.wfile.flush()
