"""Lanes from outside: what waits, pausing and resuming."""

from __future__ import annotations

from tests.admin_api.conftest import Api, People
from tests.admin_api.nouns import assigned
from tests.admin_api.test_jobs import JOB

LANE = "interactive"


def test_queues_are_counted(api: Api, people: People) -> None:
    assigned(api)
    ((lane,),) = people.run("SELECT lane FROM features WHERE name = 'tarot_reading'")
    for _ in range(3):
        api.made("/jobs", JOB)
    api.made("/jobs", JOB | {"run_at": "2999-01-01T00:00:00Z"})
    people.run(
        "UPDATE jobs SET state = 'running', suspect = true "
        "WHERE id = (SELECT id FROM jobs ORDER BY id LIMIT 1)"
    )
    people.run("UPDATE jobs SET run_at = now() - interval '1 hour' WHERE state = 'queued' AND NOT scheduled")
    page = api.get("/queues").json()
    assert [queue["lane"] for queue in page["items"]] == ["interactive", "standard", "batch"]
    queues = {queue.pop("lane"): queue for queue in page["items"]}
    mine = queues.pop(lane)
    assert 3600 <= mine.pop("oldest_age_seconds") < 3700
    assert mine == {
        "is_paused": False, "queued": 2, "scheduled": 1, "is_exact": True, "running": 1, "suspects": 1,
        "doorbells": 3,
    }  # fmt: skip
    empty = {
        "is_paused": False, "queued": 0, "scheduled": 0, "is_exact": True, "running": 0, "suspects": 0,
        "doorbells": 0, "oldest_age_seconds": None,
    }  # fmt: skip
    assert list(queues.values()) == [empty] * 2


def test_a_lane_is_paused_and_resumed(api: Api, people: People) -> None:
    def row() -> tuple[bool, bool, bool]:
        ((paused, resumed, by),) = people.run(
            "SELECT is_paused, resumed_at IS NOT NULL, changed_by IS NOT NULL FROM lanes WHERE name = %s",
            [LANE],
        )
        return paused, resumed, by

    assert api.post(f"/queues/{LANE}/resume").json()["is_paused"] is False
    assert row() == (False, False, False), "what was not paused is left alone"
    for _ in range(2):
        paused = api.post(f"/queues/{LANE}/pause")
        assert paused.status_code == 200
        assert (paused.json()["lane"], paused.json()["is_paused"]) == (LANE, True)
    assert row() == (True, False, True)
    assert api.post(f"/queues/{LANE}/resume").json()["is_paused"] is False
    assert row() == (False, True, True)
    assert api.post("/queues/slow/pause").status_code == 422
    assert people.admin(mfa=False).post(f"/queues/{LANE}/pause").status_code == 403
    assert people.admin("admin").get("/queues").status_code == 200
