"""The variants of a weighted assignment stand beside each other, on a phone, too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from standalone.up import FIRST_ADMIN
from tests.ui.browser import barriers
from tests.ui.conftest import Installation, Visitors
from tests.workers.conftest import until

FEATURE = "cover_letter"


@pytest.fixture
def weighted(installation: Installation) -> Iterator[str]:
    """The page of an assignment that is weighted for a while, and has served a job."""
    machine = installation.machine
    with machine.api(machine.command("token", "admin", "--email", FIRST_ADMIN, "--mfa").strip()) as api:
        found = {each["feature_name"]: each for each in api.pages("/api/v1/feature-assignments")}
        path = f"/api/v1/feature-assignments/{found[FEATURE]['id']}"
        api.call("PATCH", path, {"strategy": "weighted"})
        job = api.call(
            "POST", "/api/v1/jobs", {"feature": FEATURE, "input": {"profile": "A cook", "job": "Chef"}}
        )
        assert api.call("GET", f"/api/v1/jobs/{job['id']}?wait=30")["state"] == "succeeded"
        # It is counted a second later, and the page does not ask again.
        until(lambda: api.call("GET", f"/api/v1/usage/stats?feature={FEATURE}")["totals"]["calls"])
        yield f"/assignments/{FEATURE}"
        api.call("PATCH", path, {"strategy": found[FEATURE]["strategy"]})


def test_variants_are_compared_on_a_phone(visiting: Visitors, weighted: str) -> None:
    visit = visiting("keeper", width=360)
    page = visit.open(weighted)
    table = page.get_by_role("region", name="Variants")

    expect(table).to_contain_text("100 %")

    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    assert table.evaluate("each => each.scrollWidth <= each.clientWidth")
    assert barriers(page) == ""
    visit.check()
