"""Integrations' pages: the list with its health, the form with its secrets, and the test that is sent."""

from __future__ import annotations

from tests.admin_api.conftest import Api, People
from tests.admin_api.pages.conftest import Browser, said
from tests.routing.servers import ok, raw

SECRET = "whsec-canary-77aa01"
TYPED = {
    "name": "ops",
    "type": "webhook",
    "endpoint": "https://hooks.example.com/x",
    "credentials": f"secret = {SECRET}",
    "settings": '{"allow_private_network": true}',
    "is_active": "on",
}


def made(desk: Browser, **fields: str | None) -> str:
    """The address of the integration that a form made."""
    answer = desk.post("/integrations/new", {**TYPED, **fields})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"].removesuffix("/edit")


def test_without_any_the_page_says_what_to_do(desk: Browser, reader: Browser) -> None:
    assert "Nobody is told yet" in said(desk.get("/integrations"))
    assert 'href="/integrations/new"' not in reader.get("/integrations").text


def test_credentials_are_taken_and_never_shown(desk: Browser, api: Api, people: People) -> None:
    path = made(desk)
    (stored,) = api.get("/integrations").json()["items"]
    assert stored["credential_names"] == ["secret"]
    assert stored["settings"] == {"allow_private_network": True}
    form = desk.get(f"{path}/edit")
    assert "Stored: secret." in said(form)
    assert SECRET not in form.text
    refused = desk.post(f"{path}/edit", {**TYPED, "endpoint": "nowhere"})
    assert refused.status_code == 422
    assert 'id="field-endpoint-error"' in refused.text
    assert SECRET not in refused.text

    def version() -> tuple[int, list[str]]:
        ((number, names),) = people.run(
            "SELECT credentials_version, credential_names FROM system_integrations"
        )
        return number, names

    assert desk.post(f"{path}/edit", {**TYPED, "credentials": "", "name": "renamed"}).status_code == 303
    assert version() == (1, ["secret"])
    desk.post(f"{path}/edit", {**TYPED, "credentials": "", "credentials.remove": "on"})
    assert version() == (1, [])
    assert 'id="field-credentials-error"' in desk.post(f"{path}/edit", {**TYPED, "credentials": "x"}).text


def test_a_test_is_really_sent_and_its_end_is_told(desk: Browser) -> None:
    with raw(lambda connection, _: connection.sendall(ok())) as server:
        path = made(desk, endpoint=f"{server.url}/hook")
        answer = desk.post(f"{path}/test", {"back": f"{path}/edit"})
        assert answer.headers["location"] == f"{path}/edit"
        assert b"integration.test" in server.requests[0]
    page = said(desk.get("/integrations"))
    assert "It arrived, after" in page
    assert "arrived now" in page
    assert desk.post(f"{path}/test").headers["location"] == "/integrations"
    page = said(desk.get("/integrations"))
    assert "It did not arrive." in page
    assert "failed now" in page


def test_an_integration_is_deleted(desk: Browser, api: Api) -> None:
    path = made(desk)
    assert 'data-confirm="Delete ops' in desk.get(f"{path}/edit").text
    assert desk.post(f"{path}/delete").headers["location"] == "/integrations"
    assert api.get("/integrations").json()["items"] == []
    assert desk.post(f"{path}/delete").status_code == 404


def test_readers_see_the_list_and_write_nothing(api: Api, reader: Browser) -> None:
    api.made(
        "/integrations", {"name": "تنبيه <b>", "type": "webhook", "endpoint": "https://hooks.example.com/"}
    )
    page = reader.get("/integrations")
    assert '<span dir="auto">تنبيه &lt;b&gt;</span>' in page.text
    assert "never tested" in said(page)
    assert 'action="/integrations' not in page.text
    assert reader.get("/integrations/new").status_code == 403
