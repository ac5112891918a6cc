"""The process as a whole: commits, incidents, probes, documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.admin_api.conftest import Api, People
from tests.admin_api.nouns import KEY, assigned, model_body, provider_body
from tests.admin_api.test_jobs import JOB


def test_what_was_answered_is_committed(api: Api, people: People) -> None:
    """A commit that fails turns the answer into an error: it came before the answer left."""
    people.run(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'later' USING ERRCODE = 'serialization_failure'; END $$"
    )
    people.run(
        "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON ai_providers DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION fail()"
    )
    refused = api.post("/providers", provider_body())
    assert refused.status_code == 503
    assert api.get("/providers").json()["items"] == []


def test_every_change_is_a_new_version_and_a_refusal_none(api: Api, people: People) -> None:
    def version() -> int:
        ((number,),) = people.run("SELECT version FROM config_state")
        return int(number)

    seen = [version()]
    provider = api.made("/providers", provider_body())
    seen.append(version())
    api.patch(f"/providers/{provider['id']}", {"name": "Other"})
    seen.append(version())
    api.delete(f"/providers/{provider['id']}")
    seen.append(version())
    assert seen == sorted(set(seen))
    api.post("/providers", provider_body(type="cohere"))
    api.delete(f"/providers/{provider['id']}")
    api.get("/providers")
    assert version() == seen[-1]


def test_writers_queue(api: Api) -> None:
    """What a writer has checked is still true when it writes."""
    with ThreadPoolExecutor(2) as pool:
        for number in range(15):
            provider = api.made("/providers", provider_body(f"p{number}"))
            adding = pool.submit(api.post, "/models", model_body(provider))
            removing = pool.submit(api.delete, f"/providers/{provider['id']}")
            ended = (adding.result().status_code, removing.result().status_code)
            assert ended in {(201, 409), (422, 204)}


def test_an_incident_tells_no_more_than_its_number(
    api: Api, http: httpx.Client, people: People, caplog: pytest.LogCaptureFixture
) -> None:
    people.run("ALTER TABLE ai_providers RENAME COLUMN base_url TO address")
    answer = api.post("/providers", provider_body(api_key=KEY))
    assert answer.status_code == 500
    found = re.search(r"incident (\w+)", answer.json()["detail"])
    assert found
    assert "base_url" not in answer.text
    assert found.group(1) in caplog.text
    assert KEY not in caplog.text
    assert (api.token or "") not in caplog.text
    ready = http.get("/readyz")
    assert ready.status_code == 503
    assert "orrery migrate" in ready.json()["detail"]


def test_a_restart_of_postgresql_costs_no_request(api: Api, people: People) -> None:
    """Connections that it ended are found out before a request is given one."""
    assigned(api)
    calls = [
        lambda: api.post("/jobs", JOB),
        lambda: api.get("/jobs"),
        lambda: api.get("/providers"),
        lambda: api.get("/queues"),
        lambda: api.patch("/features/tarot_reading", {"description": "Other"}),
    ] * 4
    with ThreadPoolExecutor(len(calls)) as pool:
        for _ in range(2):
            answers = list(pool.map(lambda call: call(), calls))  # many connections are open now
            assert {answer.status_code for answer in answers} == {200, 202}
            ended = people.run(
                "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            assert ended[0][0] >= 2


def test_probes(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").json() == {"status": "ok", "postgresql": "ok", "redis": "ok"}


def test_the_documentation_needs_nobody_else(http: httpx.Client) -> None:
    page = http.get("/docs")
    assert page.status_code == 200
    linked = re.findall(r"(?:src|href)=\"([^\"]+)\"", page.text)
    assert len(linked) == 3
    for address in linked:
        assert address.startswith("/docs/assets/")
        assert http.get(address).status_code == 200
    assert not re.search(r"https?://", page.text)


def test_the_schema_holds_together(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()

    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for member in node.values():
                yield from references(member)
        elif isinstance(node, list):
            for member in node:
                yield from references(member)

    found = set(references(document))
    assert "#/components/schemas/Problem" in found
    for reference in found:
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
    named = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(named) == len(set(named))
