"""A write under an Idempotency-Key happens once, whatever the noun, and is answered the same each time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
import pytest

from store.settings import Settings
from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.nouns import KEY, assigned, feature_body, model_body, provider_body
from tests.admin_api.test_jobs import JOB, finish
from tests.workers.conftest import until

SLOW = (
    "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NEW; END $$"
)


def keyed(api: Api, method: str, path: str, body: Any = None, key: str = "k") -> httpx.Response:
    return api.call(method, path, body, headers={"Idempotency-Key": key})


def assert_replayed(first: httpx.Response, again: httpx.Response) -> None:
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers.get("content-type") == first.headers.get("content-type")


def test_every_configuration_write_is_done_once(api: Api, people: People) -> None:
    def once(method: str, path: str, body: Any = None) -> Json:
        first = keyed(api, method, path, body, key=f"{method} {path}")
        assert first.status_code < 300, first.text
        before = people.run("SELECT version FROM config_state")
        again = keyed(api, method, path, body, key=f"{method} {path}")
        assert_replayed(first, again)
        assert people.run("SELECT version FROM config_state") == before
        return first.json() if first.content else {}

    provider = once("POST", "/providers", provider_body(api_key=KEY))
    model = once("POST", "/models", model_body(provider))
    feature = once("POST", "/features", feature_body())
    assignment = once(
        "POST", "/feature-assignments", {"feature_name": feature["name"], "model_id": model["id"]}
    )
    once("PATCH", f"/providers/{provider['id']}", {"api_key": "sk-second-0000"})
    assert api.get(f"/providers/{provider['id']}").json()["key_version"] == 2, "the second key came once"
    once("PUT", f"/models/{model['id']}", model_body(provider, input_price_per_1k="0.1"))
    once("DELETE", f"/feature-assignments/{assignment['id']}")
    once("POST", "/queues/batch/pause")
    assert [len(api.get(f"/{noun}").json()["items"]) for noun in ("providers", "models")] == [1, 1]


def test_what_differs_is_refused_and_what_does_not_matter_is_the_same(api: Api, people: People) -> None:
    first = keyed(api, "POST", "/providers", provider_body())
    turned = dict(reversed(provider_body().items()))
    assert_replayed(first, keyed(api, "POST", "/providers", turned))
    for refused in (
        keyed(api, "POST", "/providers", provider_body(name="Other")),
        keyed(api, "POST", "/features", feature_body()),
        keyed(api, "POST", "/queues/batch/pause"),
        keyed(api, "DELETE", f"/providers/{first.json()['id']}"),
        keyed(api, "POST", "/providers", provider_body("b"), key="x" * 256),
        keyed(api, "POST", "/providers", provider_body("b"), key=""),
    ):
        assert refused.status_code == 422, refused.text
        assert refused.json()["errors"][0]["field"] == "Idempotency-Key"
        assert "idempotent-replayed" not in refused.headers
    assert [item["slug"] for item in api.get("/providers").json()["items"]] == ["acme"]
    assert keyed(people.admin(), "POST", "/providers", provider_body("b")).status_code == 201, "their own key"


def test_a_key_of_a_job_is_no_key_of_a_provider(api: Api) -> None:
    assigned(api)
    assert keyed(api, "POST", "/jobs", JOB, key="job").status_code == 202
    assert keyed(api, "POST", "/providers", provider_body(), key="job").status_code == 422
    assert keyed(api, "POST", "/providers", provider_body(), key="provider").status_code == 201
    assert keyed(api, "POST", "/jobs", JOB, key="provider").status_code == 422


def test_a_refusal_is_not_kept(api: Api) -> None:
    assert keyed(api, "POST", "/models", {"provider_id": "x"}).status_code == 422
    taken = api.made("/providers", provider_body())
    assert keyed(api, "POST", "/providers", provider_body()).status_code == 409
    api.delete(f"/providers/{taken['id']}")
    assert keyed(api, "POST", "/providers", provider_body()).status_code == 201


def test_a_replay_is_for_those_who_may(api: Api, people: People) -> None:
    keyed(api, "POST", "/providers", provider_body())
    people.run("UPDATE admins SET role = 'admin'")
    assert keyed(api, "POST", "/providers", provider_body()).status_code == 403
    stranger = people.nobody()
    assert keyed(stranger, "POST", "/providers", provider_body()).status_code == 401


def test_of_many_at_once_one_is_done_and_the_others_are_asked_to_come_back(
    api: Api, people: People, settings: Settings
) -> None:
    people.run(SLOW)
    people.run("CREATE TRIGGER slow BEFORE INSERT ON ai_providers FOR EACH ROW EXECUTE FUNCTION slow()")
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND NOT granted"
    with psycopg.connect(settings.database()) as holder, ThreadPoolExecutor(9) as pool:
        holder.execute("SELECT pg_advisory_xact_lock(7)")
        first = pool.submit(keyed, api, "POST", "/providers", provider_body())
        until(lambda: people.run(waiting) == [(1,)])
        others = list(pool.map(lambda _: keyed(api, "POST", "/providers", provider_body()), range(8)))
        holder.rollback()
    for refused in others:
        assert refused.status_code == 409
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["type"] == "urn:orrery:problem:idempotency-key"
    assert first.result().status_code == 201
    assert_replayed(first.result(), keyed(api, "POST", "/providers", provider_body()))


def test_change_and_answer_are_committed_together_or_not_at_all(api: Api, people: People) -> None:
    people.run(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'later' USING ERRCODE = 'serialization_failure'; END $$"
    )
    for table in ("ai_providers", "idempotency_keys"):
        people.run(
            f"CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION fail()"
        )
        refused = keyed(api, "POST", "/providers", provider_body())
        assert refused.status_code == 503
        assert people.run("SELECT (SELECT count(*) FROM ai_providers), count(*) FROM idempotency_keys") == [
            (0, 0)
        ]
        people.run(f"DROP TRIGGER at_commit ON {table}")
    assert keyed(api, "POST", "/providers", provider_body()).status_code == 201


def test_nothing_that_was_sent_or_answered_is_stored_in_the_clear(api: Api, people: People) -> None:
    keyed(api, "POST", "/providers", provider_body(api_key=KEY, description="confidential"))
    ((dump, answer),) = people.run("SELECT idempotency_keys::text, answer FROM idempotency_keys")
    for word in (KEY, KEY[-4:], "confidential", "acme"):
        assert word not in dump
        assert word.encode() not in answer
    people.run("UPDATE idempotency_keys SET key = 'other'")
    moved = keyed(api, "POST", "/providers", provider_body(api_key=KEY), key="other")
    assert moved.status_code == 409, "an answer opens in its own row only"


def test_actions_on_many_jobs_are_done_once(api: Api, people: People) -> None:
    assigned(api)
    for _ in range(3):
        finish(people, api.made("/jobs", JOB)["id"], state="failed", error_class="timeout")
    failed = {"filter": {"state": "failed"}}
    first = keyed(api, "POST", "/jobs/retry", failed, key="retry")
    assert first.json()["retried"] == 3
    assert_replayed(first, keyed(api, "POST", "/jobs/retry", failed, key="retry"))
    assert people.run("SELECT count(*) FROM jobs") == [(3,)]

    queued = {"filter": {"state": "queued"}}
    first = keyed(api, "POST", "/jobs/cancel", queued, key="cancel")
    assert first.json() == {"cancelled": 3}
    assert_replayed(first, keyed(api, "POST", "/jobs/cancel", queued, key="cancel"))

    job = api.made("/jobs", JOB)
    first = keyed(api, "POST", f"/jobs/{job['id']}/cancel", key="one")
    assert first.status_code == 200
    assert_replayed(first, keyed(api, "POST", f"/jobs/{job['id']}/cancel", key="one"))


def test_a_retry_whose_answer_was_lost_is_not_repeated(api: Api, people: People) -> None:
    """As after a crash between the two commits: money is not spent twice."""
    assigned(api)
    finish(people, api.made("/jobs", JOB)["id"], state="failed", error_class="timeout")
    people.run(SLOW.replace("PERFORM pg_advisory_xact_lock(7)", "RAISE disk_full"))
    people.run("CREATE TRIGGER slow BEFORE UPDATE ON idempotency_keys FOR EACH ROW EXECUTE FUNCTION slow()")
    failed = {"filter": {"state": "failed"}}
    assert keyed(api, "POST", "/jobs/retry", failed).status_code == 503
    people.run("DROP TRIGGER slow ON idempotency_keys")
    lost = keyed(api, "POST", "/jobs/retry", failed)
    assert lost.status_code == 409
    assert "another key" in lost.json()["detail"]
    assert people.run("SELECT count(*) FROM jobs") == [(1,)]


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_the_documentation_names_the_header(http: httpx.Client, method: str) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    writes = {address: path[method] for address, path in paths.items() if method in path}
    preview = writes.pop("/api/v1/schedules/preview", None)  # writes nothing, whatever it is asked by
    assert preview is None or "Idempotency-Key" not in str(preview.get("parameters"))
    operations = [operation for address, operation in writes.items() if "/auth/" not in address]
    assert operations
    for operation in operations:
        assert [p["name"] for p in operation["parameters"]].count("Idempotency-Key") == 1
    reads = [p["name"] for path in paths.values() for p in path.get("get", {}).get("parameters", [])]
    assert "Idempotency-Key" not in reads
