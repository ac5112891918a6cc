"""Addresses that lead inside are nowhere connected to: the corpus of `tests/ssrf.py` against every place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from routing.transport import Transport
from store.database import Role, open_pool
from store.settings import Settings
from store.vault import Keyring, Vault
from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.nouns import provider_body
from tests.routing.servers import Behaviour, ok, raw
from tests.rows import Rows
from tests.ssrf import CORPUS, NAMES, PUBLIC, Address, Spy, trap, watched
from workers.client import Client
from workers.courier import Courier
from workers.run import WorkerProcess

FEATURE, INPUT = "tarot_reading", {"cards": ["The Sun"]}
Place = Callable[[Api, str, bool], Json | None]
_numbers = count()  # no two rows share a name


def _provider(api: Api, url: str, private: bool) -> Json | None:
    """Save it, and try it, if it was saved."""
    answer = api.post(
        "/providers", provider_body(f"p{next(_numbers)}", base_url=url, allow_private_network=private)
    )
    if answer.status_code == 422:
        return None
    assert answer.status_code == 201, answer.text
    verdict: Json = api.post(f"/providers/{answer.json()['id']}/test").json()
    return verdict


def _unsaved_provider(api: Api, url: str, private: bool) -> Json | None:
    answer = api.post("/providers/test", provider_body(base_url=url, allow_private_network=private))
    return _verdict(answer.status_code, answer.json())


def _integration(kind: str, **members: Any) -> Place:
    def place(api: Api, url: str, private: bool) -> Json | None:
        settings = {"allow_private_network": private, **members.get("settings", {})}
        endpoint = url.replace("http://", "smtp://").removesuffix("/v1") if kind == "email" else url
        body = {
            "name": f"i{next(_numbers)}",
            "type": kind,
            "endpoint": endpoint,
            **members,
            "settings": settings,
        }
        answer = api.post("/integrations", body)
        if answer.status_code == 422:
            return None
        assert answer.status_code == 201, answer.text
        tried = api.post(f"/integrations/{answer.json()['id']}/test")
        return _verdict(tried.status_code, tried.json())

    return place


def _slack_by_credential(api: Api, url: str, private: bool) -> Json | None:
    body = {"name": f"i{next(_numbers)}", "type": "slack", "credentials": {"webhook_url": url}}
    answer = api.post("/integrations", {**body, "settings": {"allow_private_network": private}})
    if answer.status_code == 422:
        return None
    tried = api.post(f"/integrations/{answer.json()['id']}/test")
    return _verdict(tried.status_code, tried.json())


def _verdict(status: int, answer: Json) -> Json | None:
    assert status in (200, 422), answer
    return answer if status == 200 else None


_KEYS = {"access_key_id": "AKID", "secret_access_key": "x"}
PLACES: dict[str, Place] = {
    "provider": _provider,
    "unsaved provider": _unsaved_provider,
    "webhook": _integration("webhook"),
    "slack": _integration("slack"),
    "slack by credential": _slack_by_credential,
    "email": _integration("email", settings={"from": "a@example.com", "to": "b@example.com"}),
    "s3": _integration("s3", credentials=_KEYS, settings={"bucket": "b"}),
}


@contextmanager
def engines_known(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, *apis: Api, more: tuple[int, ...] = ()
) -> Iterator[Spy]:
    ports = [urlsplit(settings.redis()).port, *(api.port for api in apis), *more]
    with watched(monkeypatch, *(("127.0.0.1", port) for port in ports if port)) as spy:
        yield spy


def test_the_corpus_is_large_enough_and_the_spy_sees(
    monkeypatch: pytest.MonkeyPatch, api: Api, settings: Settings
) -> None:
    assert len({address.authority for address in CORPUS}) >= 60
    with raw(lambda connection, _: connection.sendall(ok())) as server:
        with engines_known(monkeypatch, settings, api) as spy:
            assert _unsaved_provider(api, server.url, True) is not None
            assert spy.seen == [("127.0.0.1", urlsplit(server.url).port)]
        assert len(server.requests) == 1


@pytest.mark.parametrize("place", PLACES)
def test_no_place_leads_inside(
    monkeypatch: pytest.MonkeyPatch, api: Api, settings: Settings, place: str
) -> None:
    with trap() as (port, came), engines_known(monkeypatch, settings, api) as spy:
        tried = 0
        for address in CORPUS:
            verdict = PLACES[place](api, address.url(port), False)
            assert verdict is None or verdict["ok"] is False, address
            assert spy.seen == [], address
            tried += verdict is not None
        for address in (each for each in CORPUS if each.is_metadata):
            verdict = PLACES[place](api, address.url(port), True)
            assert verdict is None or verdict["ok"] is False, address
            assert spy.seen == [], address
    assert came == []
    assert tried >= 60, "most are saved and tried, not just refused for their spelling"


def test_no_job_leads_inside(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, rows: Rows, client: Client
) -> None:
    """Rows as nothing checked them: one job fails over through all of the corpus."""
    with trap() as (port, came):
        for private, corpus in ((False, CORPUS), (True, [each for each in CORPUS if each.is_metadata])):
            models = [
                _model(rows, f"p{private}{n}".lower(), each, port, private) for n, each in enumerate(corpus)
            ]
            rows.assign(FEATURE, *models, max_retries=0)
            worker = WorkerProcess(settings, lanes=("standard", "interactive"), threads=1)
            worker.start()
            try:
                with engines_known(monkeypatch, settings) as spy:
                    job = client.result(client.enqueue(FEATURE, INPUT), timeout=60)
                    assert spy.seen == []
            finally:
                worker.stop()
            assert job.state == "failed"
            assert len(job.attempts) == len(corpus)
            assert {attempt.error_class for attempt in job.attempts} <= {"configuration", "connection"}
    assert came == []


def test_no_callback_leads_inside(
    monkeypatch: pytest.MonkeyPatch, api: Api, settings: Settings, rows: Rows, people: People
) -> None:
    rows.assign(FEATURE, rows.model(rows.provider("p", "https://llm.example/v1"), "m"))
    pool, transport = open_pool(settings.database(), Role.WORKER, size=1), Transport()
    courier = Courier(pool, transport, Vault(Keyring.load(settings)), pause_seconds=60)
    try:
        with trap() as (port, came):
            stored = []
            for address in CORPUS:
                body = {"feature": FEATURE, "input": INPUT, "callback_url": address.url(port)}
                answer = api.post("/jobs", body)
                assert answer.status_code in (202, 422), answer.text
                if answer.status_code == 202:
                    stored.append(answer.json()["id"])
                    api.post(f"/jobs/{stored[-1]}/cancel")
            with engines_known(monkeypatch, settings, api) as spy:
                while courier.turn():
                    pass
                assert spy.seen == []
        assert came == []
        assert len(stored) >= 60
        told = people.run(
            "SELECT count(*) FROM notices WHERE tries = 1 AND sent_at IS NULL AND error IS NOT NULL"
        )
        assert told == [(len(stored),)]
    finally:
        transport.close()
        pool.close()


def _model(rows: Rows, slug: str, address: Address, port: int, private: bool) -> UUID:
    provider = rows.provider(slug, address.url(port), allow_private_network=private)
    return rows.model(provider, "m")


def test_a_name_is_looked_up_once_and_its_answer_is_what_is_connected_to(
    monkeypatch: pytest.MonkeyPatch, api: Api, settings: Settings
) -> None:
    """Rebinding: innocent when it is checked, inside a moment later."""
    monkeypatch.setitem(NAMES, "rebinding.example.com", [[PUBLIC], ["127.0.0.1"]])
    for place in PLACES:
        with trap() as (port, came), engines_known(monkeypatch, settings, api) as spy:
            verdict = PLACES[place](api, f"http://rebinding.example.com:{port}/v1", False)
            assert verdict is not None
            assert verdict["ok"] is False
            assert spy.seen == [(PUBLIC, port)], place
            assert spy.lookups.count("rebinding.example.com") == 1, place
        assert came == []


def _saying(answer: bytes) -> Behaviour:
    return lambda connection, _: connection.sendall(answer)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_lead_nowhere(
    monkeypatch: pytest.MonkeyPatch, api: Api, settings: Settings, status: int
) -> None:
    with trap() as (port, came):
        for target in (f"http://127.0.0.1:{port}/", "http://169.254.169.254/", "//localhost/", "/elsewhere"):
            moved = f"HTTP/1.1 {status} Moved\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()
            with raw(_saying(moved)) as server:
                there = urlsplit(server.url).port or 0
                with engines_known(monkeypatch, settings, api, more=(there,)) as spy:
                    for place in PLACES.keys() - {"email"}:
                        verdict = PLACES[place](api, server.url, True)
                        assert verdict is not None
                        assert verdict["ok"] is False
                    assert spy.seen == []
                assert len(server.requests) >= len(PLACES) - 1
    assert came == []
