"""Chains, groups and callbacks: what the end of a job brings about, in the transaction that ends it."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import pytest

from routing.errors import InputRejected
from routing.transport import Transport
from store.database import Identity, Pool, Role
from store.settings import Settings
from store.vault import Keyring, Vault
from tests.rows import Rows
from tests.sandbox import Sandbox
from tests.workers.conftest import until
from tests.workers.schedules import Owner, add, owner_of
from workers import records
from workers.client import Client
from workers.courier import Courier
from workers.firing import Planned
from workers.run import WorkerProcess

TTS = {"feature_name": "daily_zodiac_tts"}


@pytest.fixture
def owner(settings: Settings) -> Iterator[Owner]:
    with owner_of(settings) as db:
        yield db


@pytest.fixture
def assigned(rows: Rows, sandbox: Sandbox) -> None:
    provider = rows.provider("p", sandbox.openai)
    rows.assign("daily_zodiac_text", rows.model(provider, "m"), user="{{ sign }} {{ language }}")
    rows.assign(
        "daily_zodiac_tts",
        rows.model(provider, "tts", prices=None, capabilities=["speech"]),
        user="{{ text }}",
        parameters={"voice": "alloy"},
    )
    rows.assign("text_embedding", rows.model(provider, "e", capabilities=["embedding"]), user="{{ text }}")


def ended(client: Client, job_id: UUID) -> records.Job:
    """The job once its chain has ended."""

    def all_ended() -> bool:
        job = client.job(job_id)
        assert job is not None
        return job.is_finished and all(link.state not in ("queued", "running") for link in job.chain)

    until(all_ended, seconds=30)
    job = client.job(job_id)
    assert job is not None
    return job


@pytest.mark.usefixtures("worker", "assigned")
class TestChains:
    def test_text_is_spoken_and_each_member_shows_all(self, client: Client) -> None:
        first = client.enqueue(
            "daily_zodiac_text",
            {"sign": "leo", "language": "en"},
            user_id="u1",
            plan="premium",
            metadata={"order": 7},
            then=[TTS],
        )
        job = ended(client, first)
        assert [link.feature for link in job.chain] == ["daily_zodiac_text", "daily_zodiac_tts"]
        assert [link.state for link in job.chain] == ["succeeded", "succeeded"]
        spoken = client.job(job.chain[1].id)
        assert spoken is not None
        assert spoken.chain == job.chain
        assert (spoken.parent_id, spoken.chain_id, job.chain_id, job.parent_id) == (first, first, first, None)
        assert job.result is not None
        assert spoken.input == {"text": job.result["text"], "language": "en"}
        assert spoken.artifact_key is not None
        assert (spoken.user_id, spoken.plan, spoken.metadata) == ("u1", "premium", {"order": 7})

    def test_three_steps_with_a_map(self, client: Client) -> None:
        steps = [
            {
                "feature_name": "daily_zodiac_tts",
                "input_map": {
                    "text": "Good morning {{ input.sign }}: {{ result.text }}",
                    "language": "$.input.language",
                    "voice": "alloy",
                },
            },
            {"feature_name": "text_embedding", "input_map": {"text": "{{ input.text }}"}},
        ]
        job = ended(
            client, client.enqueue("daily_zodiac_text", {"sign": "leo", "language": "de"}, then=steps)
        )
        assert [link.state for link in job.chain] == ["succeeded"] * 3
        spoken, embedded = (client.job(link.id) for link in job.chain[1:])
        assert spoken is not None
        assert embedded is not None
        assert job.result is not None
        assert spoken.input == {
            "text": f"Good morning leo: {job.result['text']}", "language": "de", "voice": "alloy",
        }  # fmt: skip
        assert embedded.input == {"text": spoken.input["text"]}
        assert embedded.parent_id == spoken.id

    @pytest.mark.parametrize(("policy", "features"), [("stop", 1), ("continue", 2)])
    def test_after_a_failure(self, policy: str, features: int, client: Client, rows: Rows) -> None:
        rows.assign(
            "daily_zodiac_text",
            rows.model(rows.provider("q", "http://127.0.0.1:9/v1"), "m"),
            user="x",
            max_retries=0,
        )
        step = {**TTS, "input_map": {"text": "{{ input.sign }} is silent"}, "on_failure": policy}
        job = ended(client, client.enqueue("daily_zodiac_text", {"sign": "leo"}, then=[step]))
        assert job.state == "failed"
        assert len(job.chain) == features
        if features == 2:
            spoken = client.job(job.chain[1].id)
            assert spoken is not None
            assert spoken.input == {"text": "leo is silent"}
            assert spoken.state == "succeeded"

    def test_an_input_that_the_step_does_not_take_fails_it(self, client: Client, sandbox: Sandbox) -> None:
        step = {**TTS, "input_map": {"text": "result.data"}}
        job = ended(client, client.enqueue("daily_zodiac_text", {"sign": "leo"}, then=[step]))
        spoken = client.job(job.chain[1].id)
        assert spoken is not None
        assert (spoken.state, spoken.error_class) == ("failed", "input")
        assert "text" in str(spoken.error_message)
        assert sandbox.calls()["count"] == 1

    def test_a_retry_goes_the_whole_way_again(self, client: Client) -> None:
        job = ended(client, client.enqueue("daily_zodiac_text", {"sign": "leo"}, then=[TTS]))
        again = ended(client, client.retry(job).job_id)
        assert again.retry_of == job.id
        assert [link.feature for link in again.chain] == ["daily_zodiac_text", "daily_zodiac_tts"]
        assert again.chain_id == again.id


@pytest.mark.parametrize(
    ("steps", "field"),
    [
        ([{"feature_name": "nobody"}], "then/0/feature_name"),
        ([{}], "then/0/feature_name"),
        ([TTS, {"feature_name": "cv_draft", "input_map": {"profile": "x"}}], "then/1/input_map/job"),
        ([{"feature_name": "cv_draft"}], "then/0/input_map/profile"),
        ([{**TTS, "input_map": {"text": "{{ output.text }}"}}], "then/0/input_map/text"),
        ([{**TTS, "input_map": {"text": "result.text", "speed": 2}}], "then/0/input_map/speed"),
        ([{**TTS, "on_failure": "retry"}], "then/0/on_failure"),
        ([{**TTS, "input": {}}], "then/0/input"),
        ([TTS] * 11, "then"),
    ],
)
def test_steps_that_cannot_work_are_refused_at_the_door(
    steps: list[dict[str, Any]], field: str, client: Client, assigned: None, owner: Owner
) -> None:
    with pytest.raises(InputRejected) as refused:
        client.enqueue("daily_zodiac_text", {"sign": "leo"}, then=steps)
    assert refused.value.field == field
    assert owner.execute("SELECT FROM jobs").fetchall() == []


class TestGroups:
    @pytest.fixture(autouse=True)
    def _assigned(self, assigned: None) -> None:
        pass

    def fire(self, owner: Owner, client: Client, **columns: Any) -> UUID:
        matrix = {"sign": ["aries", "leo", "virgo"], "language": ["en", "de"]}
        id_ = add(owner, "Group", "0 6 * * *", inputs_matrix=matrix, **columns)
        row = owner.execute("SELECT * FROM schedules WHERE id = %s", [id_]).fetchone()
        assert row is not None
        super_admin = client.acting(Identity(Role.SUPER_ADMIN, UUID(int=1), mfa=True))
        group = super_admin.fire(Planned(**{name: row[name] for name in Planned.__slots__}))
        assert group is not None
        return group

    def group(self, owner: Owner, group: UUID) -> dict[str, Any]:
        row = owner.execute("SELECT * FROM job_groups WHERE id = %s", [group]).fetchone()
        assert row is not None
        return row

    def test_counts_and_costs_are_those_of_its_jobs(
        self, owner: Owner, client: Client, worker: WorkerProcess
    ) -> None:
        group = self.fire(owner, client, then=[TTS])
        until(lambda: self.group(owner, group)["finished_at"], seconds=60)
        found = self.group(owner, group)
        assert (found["expected"], found["total"], found["succeeded"]) == (12, 12, 12)
        assert (found["failed"], found["cancelled"], found["skipped"]) == (0, 0, 0)
        summed = owner.execute(
            "SELECT sum(cost_usd) AS cost, count(*) AS jobs, count(DISTINCT chain_id) AS chains, "
            "count(*) FILTER (WHERE cost_usd IS NULL) AS unpriced, max(finished_at) AS last "
            "FROM job_history WHERE group_id = %s", [group],
        ).fetchone()  # fmt: skip
        assert summed is not None
        assert (summed["jobs"], summed["chains"], summed["unpriced"]) == (12, 6, found["unpriced_jobs"])
        assert found["cost_usd"] == summed["cost"] > 0
        assert found["finished_at"] == summed["last"]

    def test_cancelled_members_end_it_and_their_steps_are_skipped(self, owner: Owner, client: Client) -> None:
        group = self.fire(
            owner, client, then=[TTS, {"feature_name": "text_embedding", "input_map": {"text": "input.text"}}]
        )
        ids = [row["id"] for row in owner.execute("SELECT id FROM jobs WHERE group_id = %s", [group])]
        assert client.cancel_many(ids[:5]) == 5
        assert self.group(owner, group)["finished_at"] is None
        client.cancel(ids[5])
        found = self.group(owner, group)
        assert (found["cancelled"], found["skipped"], found["total"]) == (6, 12, 6)
        assert found["finished_at"] is not None

    def test_of_many_that_end_at_once_one_sees_itself_last(self, owner: Owner, client: Client) -> None:
        group = self.fire(owner, client, callback_url="http://127.0.0.1:9/hook")
        ids = [row["id"] for row in owner.execute("SELECT id FROM jobs WHERE group_id = %s", [group])]
        with ThreadPoolExecutor(6) as threads:
            assert all(threads.map(client.cancel, ids))
        notices = owner.execute("SELECT event, content FROM notices").fetchall()
        assert [notice["event"] for notice in notices] == ["group.finished"]
        assert notices[0]["content"]["group"]["cancelled"] == 6


class Receiver:
    """An application's end of callbacks; answers what `answers` holds, then 200."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.answers: list[int] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.got.append((self.headers.get("Orrery-Signature", ""), body))
                self.send_response(outer.answers.pop(0) if outer.answers else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.usefixtures("assigned")
class TestCallbacks:
    @pytest.fixture
    def receiver(self) -> Iterator[Receiver]:
        receiver = Receiver()
        yield receiver
        receiver.close()

    @pytest.fixture
    def courier(self, db: Pool, settings: Settings) -> Iterator[Courier]:
        transport = Transport()
        yield Courier(db, transport, Vault(Keyring.load(settings)), pause_seconds=60)
        transport.close()

    @pytest.fixture
    def webhook(self, owner: Owner, settings: Settings) -> None:
        """The default webhook: it may call this machine, and signs with a secret."""
        id_ = UUID(int=7)
        blob = (
            Vault(Keyring.load(settings))
            .seal(
                '{"secret": "s3cret"}',
                table="system_integrations",
                row=str(id_),
                field="credentials",
                version=1,
            )
            .blob
        )
        owner.execute(
            "INSERT INTO system_integrations (id, name, type, endpoint, is_default, is_active, settings, "
            "sealed_credentials, credentials_version) VALUES "
            "(%s, 'hook', 'webhook', 'http://127.0.0.1:9/', true, false, %s, %s, 1)",
            [id_, '{"allow_private_network": true}', blob],
        )

    def test_it_is_signed_repeated_until_taken_and_shown(
        self,
        client: Client,
        owner: Owner,
        receiver: Receiver,
        courier: Courier,
        webhook: None,
        worker: WorkerProcess,
    ) -> None:
        job_id = client.enqueue(
            "daily_zodiac_text", {"sign": "leo"}, callback_url=receiver.url, metadata={"n": 1}
        )
        client.cancel(job_id)
        receiver.answers = [500]
        assert courier.turn() == 1
        job = client.job(job_id)
        assert job is not None
        [callback] = job.callbacks
        assert (callback.event, callback.url, callback.state, callback.tries) == (
            "job.finished", receiver.url, "pending", 1,
        )  # fmt: skip
        assert "500" in str(callback.error)
        owner.execute("UPDATE notices SET due_at = now()")

        assert courier.turn() == 1

        job = client.job(job_id)
        assert job is not None
        assert [(one.state, one.tries, one.error) for one in job.callbacks] == [("sent", 2, None)]
        (_, first), (signature, body) = receiver.got
        event = json.loads(body)
        assert json.loads(first)["id"] == event["id"]
        assert event["data"]["job"] | {"created_at": "", "finished_at": ""} == {
            "id": str(job_id), "feature": "daily_zodiac_text", "state": "cancelled", "user_id": None,
            "plan": None,
            "metadata": {"n": 1}, "group_id": None, "parent_id": None, "retry_of": None, "provider": None,
            "model": None, "cost_usd": "0", "result": None, "result_omitted": False, "created_at": "",
            "finished_at": "", "error": {"class": "cancelled", "message": "The job was cancelled."},
        }  # fmt: skip
        parts = dict(part.split("=") for part in signature.split(","))
        signed = hmac.new(b"s3cret", parts["t"].encode() + b"." + body, hashlib.sha256)
        assert parts["v1"] == signed.hexdigest()

    def test_without_leave_it_does_not_lead_into_a_private_network(
        self, client: Client, receiver: Receiver, courier: Courier
    ) -> None:
        job_id = client.enqueue("daily_zodiac_text", {"sign": "leo"}, callback_url=receiver.url)
        client.cancel(job_id)
        courier.turn()
        job = client.job(job_id)
        assert job is not None
        assert "not a public address" in str(job.callbacks[0].error)
        assert receiver.got == []

    def test_each_job_of_a_chain_tells_its_result(
        self, client: Client, receiver: Receiver, webhook: None, worker: WorkerProcess
    ) -> None:
        job = ended(
            client,
            client.enqueue("daily_zodiac_text", {"sign": "leo"}, then=[TTS], callback_url=receiver.url),
        )
        until(lambda: len(receiver.got) >= 2)
        told = [json.loads(body)["data"]["job"] for _, body in receiver.got]
        assert {one["id"] for one in told} == {str(link.id) for link in job.chain}
        by_feature = {one["feature"]: one for one in told}
        assert job.result is not None
        assert by_feature["daily_zodiac_text"]["result"]["text"] == job.result["text"]
        assert by_feature["daily_zodiac_tts"]["parent_id"] == str(job.id)
