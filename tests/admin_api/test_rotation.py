"""The master key is rotated under a running API: what was sealed opens afterwards, and is sealed anew."""

from __future__ import annotations

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

from admin_api import second_factors
from standalone.keys import rotate
from store.sealed import SEALED_COLUMNS
from store.settings import Settings
from store.vault import Keyring, Vault
from tests.admin_api.conftest import Api, People
from tests.rows import CANARY

PROVIDER = {
    "slug": "p",
    "name": "P",
    "type": "openai",
    "base_url": "http://127.0.0.1:9/v1",
    "api_key": CANARY,
}
HOOK = {"name": "h", "type": "webhook", "endpoint": "http://127.0.0.1:9/", "credentials": {"secret": CANARY}}


@pytest.fixture
def sealed_everywhere(api: Api, people: People, settings: Settings) -> httpx.Response:
    """A secret in each column that holds some, put there as in life; the answer under an idempotency key."""
    answer = api.post("/providers", PROVIDER, headers={"Idempotency-Key": "once"})
    provider = answer.json()["id"]
    assert api.put(f"/personal-keys/{provider}", {"api_key": CANARY}).is_success
    assert api.post("/integrations", HOOK).is_success
    (admin,) = people.run("SELECT id, email FROM admins")
    with psycopg.connect(settings.database(), row_factory=dict_row) as db:
        second_factors.enrol(db, Vault(Keyring.load(settings)), *admin)
    return answer


def test_everything_that_is_sealed_moves_to_the_new_key(
    sealed_everywhere: httpx.Response, api: Api, people: People, settings: Settings
) -> None:
    """That nothing is left unopened shows that the registry binds each column as its writers do."""
    done = rotate(settings)
    assert done.is_complete
    assert done.unopened == []
    assert {table for table, count in done.rewrapped.items() if count} == {
        column.table for column in SEALED_COLUMNS
    }

    again = api.post("/providers", PROVIDER, headers={"Idempotency-Key": "once"})
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.content == sealed_everywhere.content

    assert api.post("/providers", {**PROVIDER, "slug": "q"}).is_success, (
        "the token is good, and sealing works"
    )
    ((kids,),) = people.run(
        "SELECT array_agg(DISTINCT convert_from("
        "substring(sealed_key FROM 3 FOR get_byte(sealed_key, 1)), 'UTF8')) FROM ai_providers"
    )
    assert kids == [done.kid] == list(Keyring.load(settings).kids)


def test_audit_tells_of_it_without_a_secret(
    sealed_everywhere: httpx.Response, people: People, settings: Settings
) -> None:
    done = rotate(settings)
    told = str(people.run("SELECT actor, action, noun, before, after FROM audit_log WHERE actor = 'cli'"))
    assert "'sealed_key': '(changed)'" in told
    assert done.kid in str(people.run("SELECT noun_id FROM audit_log WHERE noun = 'master-keys'"))
    for entry in settings.keyring_file.read_text().split():
        assert entry.partition(":")[2] not in told
    assert CANARY not in told
