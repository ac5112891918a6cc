"""The access table of the outside contract, and that the resolver obeys it."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product
from uuid import UUID, uuid4

import pytest

from routing.access import Access, access
from routing.errors import NoAccess
from routing.resolver import resolve
from routing.snapshot import Snapshot
from routing.values import Caller, PersonalKey, Target
from tests.routing import factories

ADMIN = UUID(int=1)
CALLERS = {
    "super_admin": Caller(ADMIN, "super_admin"),
    "admin": Caller(ADMIN, "admin"),
    "somebody whose row is gone": Caller(ADMIN, None),
    "application without owner": Caller(),
}
LIKE_ADMIN = {"admin", "somebody whose row is gone"}

# caller, personal key active, use_shared_api, provider/model active, shared allowed, access; None = any
TABLE: list[tuple[str, bool | None, bool | None, bool, bool | None, str]] = [
    ("any", None, None, False, None, "DISABLED"),
    ("privileged", False, None, True, None, "AVAILABLE_SHARED"),
    ("privileged", True, True, True, None, "AVAILABLE_SHARED"),
    ("super_admin", True, False, True, None, "AVAILABLE_PERSONAL"),
    ("like admin", True, False, True, None, "AVAILABLE_PERSONAL"),
    ("like admin", True, True, True, True, "AVAILABLE_SHARED"),
    ("like admin", True, True, True, False, "AVAILABLE_PERSONAL"),
    ("like admin", False, None, True, True, "AVAILABLE_SHARED"),
    ("like admin", False, None, True, False, "NO_ACCESS"),
    ("application without owner", True, False, True, None, "AVAILABLE_SHARED"),  # it can have no key
]
EVERY = list(product(CALLERS, *[(True, False)] * 4))


def from_table(who: str, has_key: bool, use_shared: bool, is_active: bool, is_shared: bool) -> str:
    groups = {"any", who, "like admin" if who in LIKE_ADMIN else "privileged"}
    [found] = [
        word
        for group, key, shared, active, allowed, word in TABLE
        if group in groups
        and key in (None, has_key)
        and shared in (None, use_shared)
        and active == is_active
        and allowed in (None, is_shared)
    ]
    return found


@pytest.mark.parametrize(("who", "has_key", "use_shared", "is_active", "is_shared"), EVERY)
def test_every_combination_is_decided_as_the_table_says(
    who: str, has_key: bool, use_shared: bool, is_active: bool, is_shared: bool
) -> None:
    granted = access(
        CALLERS[who],
        is_active=is_active,
        has_personal_key=has_key,
        use_shared_api=use_shared,
        is_shared=is_shared,
    )
    assert granted == from_table(who, has_key, use_shared, is_active, is_shared)


@pytest.mark.parametrize(("who", "has_key", "use_shared", "is_active", "is_shared"), EVERY)
@pytest.mark.parametrize("inactive", ["provider", "model"])
def test_the_resolver_grants_what_the_table_grants(
    who: str, has_key: bool, use_shared: bool, is_active: bool, is_shared: bool, inactive: str
) -> None:
    provider = factories.provider(
        allow_shared_for_normal_admins=is_shared, is_active=is_active or inactive != "provider"
    )
    model = factories.model(provider.id, is_active=is_active or inactive != "model")
    feature = factories.feature()
    assigned = factories.assignment(feature_id=feature.id, targets=(Target(model.id),))
    key = PersonalKey(uuid4(), ADMIN, provider.id, None, 3, use_shared, None)
    snapshot = Snapshot(
        1,
        {feature.name: feature},
        {feature.id: assigned},
        {model.id: model},
        {provider.id: provider},
        personal_keys={(ADMIN, provider.id): key} if has_key else {},
    )
    plan = resolve(snapshot, factories.request(caller=CALLERS[who]), now=datetime.now(UTC))
    expected = from_table(who, has_key, use_shared, is_active, is_shared)
    used = [route.personal_key for route in plan.routes]
    assert used == {Access.AVAILABLE_SHARED: [None], Access.AVAILABLE_PERSONAL: [key]}.get(
        Access(expected), []
    )
    if expected == Access.NO_ACCESS:
        assert [passed.error_class for passed in plan.passed_over] == [NoAccess.error_class]


def test_a_key_of_another_person_or_another_provider_is_not_used() -> None:
    provider, other = factories.provider(), factories.provider(slug="other")
    keys = {
        (owner, at): PersonalKey(uuid4(), owner, at, None, 1, False, None)
        for owner, at in ((uuid4(), provider.id), (ADMIN, other.id))
    }
    snapshot = Snapshot(1, {}, {}, {}, {}, personal_keys=keys)
    assert snapshot.personal_key(Caller(ADMIN, "admin"), provider.id) is None
    assert snapshot.personal_key(Caller(), other.id) is None
    assert snapshot.personal_key(Caller(ADMIN, "admin"), other.id) is not None
