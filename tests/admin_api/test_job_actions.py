"""Idempotency keys, cancelling, retrying, and what back-pressure answers."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from admin_api.jobs import found
from store.settings import Settings
from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.nouns import assigned
from tests.admin_api.test_jobs import JOB, finish
from workers import records


@pytest.fixture
def ready(api: Api) -> Json:
    return assigned(api)


def keyed(api: Api, key: str, job: Json = JOB) -> Any:
    return api.post("/jobs", job, headers={"Idempotency-Key": key})


@pytest.mark.usefixtures("ready")
def test_a_key_makes_one_job(api: Api, people: People) -> None:
    job = JOB | {"run_at": "2999-01-01T02:00:00+02:00", "metadata": {"a": 1, "b": 2}}
    first = keyed(api, "order-7", job)
    assert first.status_code == 202
    assert "idempotent-replayed" not in first.headers
    same = job | {"run_at": "2999-01-01T00:00:00Z", "metadata": {"b": 2, "a": 1}}
    again = keyed(api, "order-7", same)
    assert again.status_code == 202
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert again.json()["id"] == first.json()["id"]

    for other in (
        JOB,
        job | {"priority": 1},
        job | {"user_id": "u"},
        job | {"input": {"cards": ["The Sun"]}},
    ):
        refused = keyed(api, "order-7", other)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["field"] == "Idempotency-Key"
    assert people.run("SELECT count(*) FROM jobs") == [(1,)]
    assert people.application().post("/jobs", job, headers={"Idempotency-Key": "order-7"}).status_code == 202
    assert people.run("SELECT count(*) FROM jobs") == [(2,)], "a key belongs to its caller"


@pytest.mark.usefixtures("ready")
def test_a_replay_needs_nothing_but_the_key(api: Api, people: People) -> None:
    """The job was accepted, so the answer stays, whatever has been changed or has happened since."""
    first = keyed(api, "k").json()
    assert first["state"] == "queued"
    finish(people, first["id"])
    api.patch("/features/tarot_reading", {"is_active": False})
    again = keyed(api, "k")
    assert again.status_code == 202
    assert again.json() == first


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
@pytest.mark.usefixtures("ready")
def test_a_bad_key_is_named(api: Api, people: People, key: str) -> None:
    refused = keyed(api, key)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "Idempotency-Key"
    assert people.run("SELECT count(*) FROM jobs") == [(0,)]


@pytest.mark.usefixtures("ready")
def test_cancelling(api: Api, people: People) -> None:
    queued, running, done = (api.made("/jobs", JOB)["id"] for _ in range(3))
    people.run("UPDATE jobs SET state = 'running', lease_token = gen_random_uuid() WHERE id = %s", [running])
    finish(people, done)
    for job_id in (queued, running):
        cancelled = api.post(f"/jobs/{job_id}/cancel")
        assert cancelled.status_code == 200
        assert (cancelled.json()["state"], cancelled.json()["error"]["class"]) == ("cancelled", "cancelled")
        assert cancelled.json()["finished_at"]
    for job_id, state in ((queued, "cancelled"), (done, "succeeded")):
        refused = api.post(f"/jobs/{job_id}/cancel")
        assert refused.status_code == 409
        assert state in refused.json()["detail"]
    assert api.post(f"/jobs/{uuid4()}/cancel").status_code == 404


@pytest.mark.usefixtures("ready")
def test_cancelling_and_retrying_what_a_filter_lets_through(api: Api, people: People) -> None:
    application = people.application()
    own = [application.made("/jobs", JOB | {"user_id": "ann"})["id"] for _ in range(3)]
    foreign = api.made("/jobs", JOB | {"user_id": "ann"})["id"]
    unfit: list[Json] = [{}, {"filter": {}}, {"filter": {"user_id": None}}, {"filter": {"age": 7}}]
    for body in unfit:
        assert api.post("/jobs/cancel", body).status_code == 422, body
        assert api.post("/jobs/retry", body).status_code == 422, body

    assert application.post("/jobs/cancel", {"filter": {"user_id": "bob"}}).json() == {"cancelled": 0}
    assert application.post("/jobs/cancel", {"filter": {"user_id": "ann"}}).json() == {"cancelled": 3}
    assert api.get(f"/jobs/{foreign}").json()["state"] == "queued"

    retried = application.post("/jobs/retry", {"user_id": "ann"})
    assert retried.status_code == 202
    assert (retried.json()["retried"], retried.json()["refused"]) == (3, [])
    new = [application.get(f"/jobs/{job_id}").json() for job_id in retried.json()["ids"]]
    assert {job["retry_of"] for job in new} == set(own)
    assert {(job["state"], job["user_id"]) for job in new} == {("queued", "ann")}

    api.patch("/features/tarot_reading", {"is_active": False})
    left_out = application.post("/jobs/retry", {"filter": {"state": "cancelled"}}).json()
    assert (left_out["retried"], left_out["ids"]) == (0, [])
    assert {refusal["id"] for refusal in left_out["refused"]} == set(own)
    assert "inactive" in left_out["refused"][0]["message"]


@pytest.mark.usefixtures("ready")
def test_many_jobs_are_cancelled(api: Api, people: People) -> None:
    api.made("/jobs", JOB)
    people.run(
        "INSERT INTO jobs (id, feature, capability, lane, input) "
        "SELECT gen_random_uuid(), feature, capability, lane, input FROM jobs, generate_series(1, 2499)"
    )
    assert api.post("/jobs/cancel", {"filter": {"feature": "tarot_reading"}}).json() == {"cancelled": 2500}
    assert people.run("SELECT count(*) FROM job_history WHERE state = 'cancelled'") == [(2500,)]


@pytest.mark.usefixtures("ready")
def test_a_retry_is_a_new_job(api: Api, people: People) -> None:
    job = api.made("/jobs", JOB | {"user_id": "u1", "metadata": {"order": 7}, "deadline_seconds": 600})
    refused = api.post(f"/jobs/{job['id']}/retry")
    assert refused.status_code == 409
    assert "queued" in refused.json()["detail"]
    finish(people, job["id"], state="failed", error_class="timeout", error_message="x")
    people.run("UPDATE job_history SET deadline_at = run_at + interval '600 seconds'")

    made = api.post(f"/jobs/{job['id']}/retry", headers={"Idempotency-Key": "again"})
    assert made.status_code == 202
    retry = made.json()
    assert retry["id"] != job["id"]
    assert made.headers["location"].endswith(retry["id"])
    kept = ("feature", "input", "user_id", "priority", "metadata")
    assert {name: retry[name] for name in kept} == {name: job[name] for name in kept}
    shown = api.get(f"/jobs/{retry['id']}").json()
    assert shown["retry_of"] == retry["retry_of"] == job["id"]
    assert people.run("SELECT extract(epoch FROM deadline_at - run_at)::int FROM jobs") == [(600,)]
    assert api.get(f"/jobs/{job['id']}").json()["state"] == "failed"

    replay = api.post(f"/jobs/{job['id']}/retry", headers={"Idempotency-Key": "again"})
    assert replay.headers["idempotent-replayed"] == "true"
    assert replay.json()["id"] == retry["id"]
    api.patch("/features/tarot_reading", {"is_active": False})
    assert api.post(f"/jobs/{job['id']}/retry").status_code == 422
    assert api.post(f"/jobs/{uuid4()}/retry").status_code == 404


def test_an_application_acts_on_its_own_jobs_only(api: Api, people: People, ready: Json) -> None:
    one, other = people.application(), people.application()
    job = one.made("/jobs", JOB)
    assert other.post(f"/jobs/{job['id']}/cancel").status_code == 404
    assert people.application("jobs:read").post(f"/jobs/{job['id']}/cancel").status_code == 403
    assert one.post(f"/jobs/{job['id']}/cancel").status_code == 200
    assert other.post(f"/jobs/{job['id']}/retry").status_code == 404
    assert one.post(f"/jobs/{job['id']}/retry").status_code == 202


@dataclass(frozen=True)
class Crew:
    """An admin, and who else enqueues; whose jobs the admin cancels and repeats is `own`."""

    admin: Api
    own: list[Api]
    others: list[Api]


@pytest.fixture
def crew(people: People, api: Api, ready: Json) -> Crew:
    admin, colleague = people.admin("admin"), people.admin("admin")
    application, theirs = (people.application(owner=UUID(me(one))) for one in (admin, colleague))
    return Crew(admin, [admin, application], [colleague, theirs, api, people.application()])


def me(person: Api) -> str:
    return str(person.get("/auth/me").json()["id"])


def test_an_admin_ends_and_repeats_what_was_enqueued_in_the_own_name(crew: Crew, people: People) -> None:
    for callers, status in ((crew.own, 200), (crew.others, 403)):
        for caller in callers:
            job_id = caller.made("/jobs", JOB)["id"]
            assert crew.admin.get(f"/jobs/{job_id}").status_code == 200
            answer = crew.admin.post(f"/jobs/{job_id}/cancel")
            assert answer.status_code == status, answer.text
            assert caller.get(f"/jobs/{job_id}").json()["state"] == (
                "cancelled" if status == 200 else "queued"
            )
            people.run("SELECT cancel_jobs(ARRAY[%s]::uuid[])", [job_id])
            answer = crew.admin.post(f"/jobs/{job_id}/retry")
            assert answer.status_code == (202 if status == 200 else 403), answer.text
    assert people.run("SELECT count(*) FROM jobs") == [(len(crew.own),)]


def test_a_filter_lets_an_admin_through_to_the_own_jobs_only(crew: Crew, people: People, api: Api) -> None:
    own = {caller.made("/jobs", JOB)["id"] for caller in crew.own}
    others = {caller.made("/jobs", JOB)["id"] for caller in crew.others}
    every = {"feature": "tarot_reading"}
    assert crew.admin.post("/jobs/cancel", every).json() == {"cancelled": len(own)}
    assert {str(id_) for (id_,) in people.run("SELECT id FROM jobs")} == others
    assert api.post("/jobs/cancel", every).json() == {"cancelled": len(others)}
    retried = crew.admin.post("/jobs/retry", every).json()
    assert retried["retried"] == len(own)
    assert {str(id_) for (id_,) in people.run("SELECT retry_of FROM jobs")} == own


def test_what_the_api_would_let_an_admin_do_the_database_does_not(
    crew: Crew, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("admin_api.job_actions._own", lambda using, job_id, _: found(using, job_id, None))
    monkeypatch.setattr(
        "admin_api.job_actions.filters_of", lambda chosen, _: records.JobFilter(**chosen.__dict__)
    )
    jobs = [caller.made("/jobs", JOB)["id"] for caller in crew.others]
    assert crew.admin.post(f"/jobs/{jobs[0]}/cancel").status_code == 409
    assert crew.admin.post("/jobs/cancel", {"feature": JOB["feature"]}).json() == {"cancelled": 0}
    for job_id in jobs:
        people.run("SELECT cancel_jobs(ARRAY[%s]::uuid[])", [job_id])
        assert crew.admin.post(f"/jobs/{job_id}/retry").status_code == 500
    assert crew.admin.post("/jobs/retry", {"state": "cancelled"}).status_code == 500
    assert people.run("SELECT count(*) FROM jobs") == [(0,)]


@pytest.mark.usefixtures("ready")
def test_a_full_queue_asks_to_come_back(api: Api, people: People) -> None:
    assert api.patch("/features/tarot_reading", {"max_queued": 3}).json()["max_queued"] == 3
    made = [api.post("/jobs", JOB) for _ in range(5)]
    assert [answer.status_code for answer in made] == [202, 202, 202, 429, 429]
    for refused in (made[3], api.post("/jobs/bulk", [JOB]), api.post("/jobs/bulk", [JOB] * 4)):
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert "max_queued" in refused.json()["detail"]
    assert people.run("SELECT count(*) FROM jobs") == [(3,)]
    assert api.patch("/features/tarot_reading", {"max_queued": 0}).status_code == 422
    api.patch("/features/tarot_reading", {"max_queued": None})
    assert api.post("/jobs", JOB).status_code == 202


@pytest.mark.usefixtures("ready")
def test_a_full_disk_is_a_503(api: Api, people: People) -> None:
    people.run(
        "CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END $$"
    )
    people.run("CREATE TRIGGER no_space BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION no_space()")
    for refused in (api.post("/jobs", JOB), api.post("/jobs/bulk", [JOB])):
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1


@pytest.mark.usefixtures("ready")
def test_an_exhausted_pool_is_a_503(api: Api, people: People, settings: Settings) -> None:
    assert api.post("/jobs", JOB).status_code == 202
    with psycopg.connect(settings.database()) as owner, ThreadPoolExecutor(30) as pool:
        owner.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        waiting = [pool.submit(api.get, f"/jobs/{UUID(int=n)}") for n in range(30)]
        refused = next(
            answer for answer in map(Future.result, as_completed(waiting, 20)) if answer.status_code == 503
        )
        owner.rollback()
        answers = {answer.result().status_code for answer in waiting}
    assert int(refused.headers["retry-after"]) >= 1
    assert answers == {404, 503}
    assert api.post("/jobs", JOB).status_code == 202
