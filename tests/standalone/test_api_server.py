"""What the API's process makes of where it listens."""

from __future__ import annotations

from typing import Any

import pytest

from standalone import api_server
from standalone.api_server import is_loopback, serve
from store.settings import Settings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_these_addresses_only_this_machine_reaches(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "example.com", "localhost.example.com"])
def test_these_others_may_reach(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", True), ("0.0.0.0", False)])
def test_a_second_factor_is_postponed_on_this_machine_only(
    monkeypatch: pytest.MonkeyPatch, host: str, expected: bool
) -> None:
    served: list[Settings] = []
    options: dict[str, Any] = {}
    monkeypatch.setattr(api_server, "create_app", served.append)
    monkeypatch.setattr(api_server, "end_quietly", lambda: None)
    monkeypatch.setattr("uvicorn.run", lambda app, **given: options.update(given))
    serve(Settings(second_factor_postponable=True), host=host, port=0)
    assert served[0].second_factor_postponable is expected
    assert options["proxy_headers"] is False
