"""What every answer carries, and what a wrong address, method or body is answered."""

from __future__ import annotations

import hashlib
import logging
import re
from base64 import b64encode
from collections.abc import Callable

import httpx
import pytest

from store.settings import Settings
from tests.admin_api.conftest import Api, People

EVERYWHERE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@pytest.mark.parametrize(
    "path", ["/api/v1/features", "/api/v1/nowhere", "/healthz", "/readyz", "/docs", "/openapi.json",
             "/docs/assets/swagger-ui.css", "/docs/assets/nowhere", "/nowhere"],
)  # fmt: skip
def test_every_answer_is_guarded(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert EVERYWHERE.items() <= dict(answer.headers).items()
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-request-id"]
    assert "strict-transport-security" not in answer.headers
    private = path.startswith("/api/")
    assert (answer.headers.get("cache-control") == "no-store") == private


def test_behind_tls_browsers_are_told_to_stay_there(
    settings: Settings, http: httpx.Client, serve: Callable[..., httpx.Client]
) -> None:
    """As a proxy says, which must be one that is trusted."""
    https = {"X-Forwarded-Proto": "https"}
    behind = serve(settings.model_copy(update={"trusted_proxies": "127.0.0.1"}))
    assert "max-age=31536000" in behind.get("/healthz", headers=https).headers["strict-transport-security"]
    assert "strict-transport-security" not in http.get("/healthz", headers=https).headers


def test_an_incident_is_guarded_too(api: Api, people: People, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    people.run("ALTER TABLE ai_providers RENAME COLUMN base_url TO address")
    answer = api.get("/providers", headers={"X-Request-ID": "r-1"})
    assert answer.status_code == 500
    assert EVERYWHERE.items() <= dict(answer.headers).items()
    assert answer.headers["x-request-id"] == "r-1"
    assert answer.headers["cache-control"] == "no-store"


def test_the_page_may_run_its_own_script_and_no_other(http: httpx.Client) -> None:
    page = http.get("/docs")
    (policy,) = re.findall(r"script-src ([^;]+)", page.headers["content-security-policy"])
    inline = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    assert inline
    digests = [b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in inline]
    assert policy.split() == ["'self'", *(f"'sha256-{digest}'" for digest in digests)]
    assert not re.search(r"\son\w+=", page.text)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("r-1", True),
        ("4bf92f3577b34da6:00f0/67+aa=@b.c_d-e", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("", False),
        ("a b", False),
        ("-x", False),
        ("a'); DROP TABLE audit_log; --", False),
        ("ä", False),
    ],
)
def test_a_request_keeps_its_id_if_that_is_a_word(http: httpx.Client, sent: str, kept: bool) -> None:
    answered = http.get("/healthz", headers=[(b"X-Request-ID", sent.encode())]).headers["x-request-id"]
    assert (answered == sent) == kept
    assert re.fullmatch(r"[\w.:/+=@-]{1,128}", answered)


def test_ids_differ(http: httpx.Client) -> None:
    ids = {http.get("/healthz").headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5
    twice = http.get("/healthz", headers=[("X-Request-ID", "a"), ("X-Request-ID", "b")])
    assert twice.headers["x-request-id"] not in ("a", "b", "a, b")


def test_a_wrong_method_is_told_the_right_ones(api: Api) -> None:
    for path, allowed in (
        ("/providers", {"GET", "POST"}),
        ("/features/cv_draft", {"GET", "PUT", "PATCH", "DELETE"}),
        ("/audit", {"GET"}),
    ):
        for method in ("TRACE", "OPTIONS", "DELETE"):
            if method in allowed:
                continue
            refused = api.call(method, path)
            assert refused.status_code == 405, (method, path)
            assert refused.headers["content-type"] == "application/problem+json"
            assert set(refused.headers["allow"].split(", ")) == allowed, (method, path)


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("nonsense", 415),
        ("application/json; charset=utf-8", 422),
        ("application/merge-patch+json", 422),
    ],
)
def test_another_media_type_is_refused(api: Api, media_type: str, status: int) -> None:
    answer = api.post("/providers", content=b"{}", headers={"Content-Type": media_type})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_wrong_address_is_a_problem(http: httpx.Client, api: Api) -> None:
    for answer in (api.get("/nowhere"), api.get("/providers/"), http.get("/x"), http.get("/docs/assets/x")):
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "urn:orrery:problem:not-found"
