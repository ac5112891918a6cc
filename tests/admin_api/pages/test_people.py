"""People: added, changed, kept out, removed, logged out; read only for admins."""

from __future__ import annotations

import re

from tests.admin_api.conftest import People
from tests.admin_api.logins import PASSWORD, Person, person
from tests.admin_api.pages.conftest import Browser, said

NEW = {"email": "Ada@Example.com", "role": "admin", "password": PASSWORD}


def _added(desk: Browser) -> str:
    location: str = desk.post("/people/new", NEW).headers["location"]
    desk.get(location)
    return location


def test_a_person_is_added_and_logs_in(desk: Browser, people: People) -> None:
    answer = desk.post("/people/new", NEW)
    assert answer.status_code == 303
    shown = desk.get(answer.headers["location"])
    assert "ada@example.com may log in" in said(shown)
    assert PASSWORD not in shown.text
    ada = Person(people, answer.headers["location"].rpartition("/")[2], "ada@example.com")
    assert ada.login().status_code == 200
    listed = desk.get("/people")
    assert re.search(r"ada@example\.com .*? active no .*? (now|s ago)", said(listed))


def test_what_makes_no_person_stands_at_its_field(desk: Browser, people: People) -> None:
    answer = desk.post("/people/new", {"email": "nobody", "role": "admin", "password": "short"})
    assert answer.status_code == 422
    assert 'id="field-email-error"' in answer.text
    assert 'id="field-password-error"' in answer.text
    assert 'value="nobody"' in answer.text
    desk.post("/people/new", NEW)
    assert "Another person has this address" in said(desk.post("/people/new", NEW))
    assert people.run("SELECT count(*) FROM admins WHERE email = 'ada@example.com'") == [(1,)]


def test_address_and_role_are_changed(desk: Browser, people: People) -> None:
    at = _added(desk)
    saved = desk.post(at, {"email": "ada@example.org", "role": "super_admin"})
    assert saved.status_code == 303
    assert people.run("SELECT role, is_active FROM admins WHERE email = 'ada@example.org'") == [
        ("super_admin", True)
    ]


def test_who_changed_a_person_meanwhile_is_not_overwritten(desk: Browser, people: People) -> None:
    at = _added(desk)
    found = re.search(r'name="etag" value="([^"]+)"', desk.get(at).text)
    assert found is not None
    people.run("UPDATE admins SET role = 'super_admin' WHERE email = 'ada@example.com'")
    etag = found.group(1).replace("&#34;", '"')
    answer = desk.post(at, {"email": "other@example.com", "role": "admin", "etag": etag})
    assert answer.status_code == 412
    assert "Stored now: super_admin" in said(answer)


def test_the_last_super_admin_stays_and_the_page_says_why(desk: Browser, keeper: Person) -> None:
    at = f"/people/{keeper.id}"
    refused = desk.post(at, {"email": keeper.email, "role": "admin"})
    assert refused.status_code == 409
    assert "last active super admin" in said(refused)
    assert 'id="field-role-error"' in refused.text
    for act in ("deactivate", "delete"):
        answer = desk.post(f"{at}/{act}", {"back": at})
        assert answer.headers["location"] == at
        assert "last active super admin" in said(desk.get(at))


def test_a_person_is_kept_out_and_let_in_again(desk: Browser, people: People) -> None:
    at = _added(desk)
    ada = Person(people, at.rpartition("/")[2], "ada@example.com")
    session = ada.api()
    assert desk.post(f"{at}/deactivate").headers["location"] == at
    assert session.get("/auth/me").status_code == 401
    assert "inactive" in said(desk.get(at))
    desk.post(f"{at}/activate")
    assert ada.login().status_code == 200


def test_who_has_a_history_is_deactivated_who_has_none_is_removed(desk: Browser, people: People) -> None:
    at = _added(desk)
    assert desk.post(f"{at}/delete").headers["location"] == "/people"
    assert desk.get(at).status_code == 404
    ada = person(people, "admin")
    ada.api()
    assert desk.post(f"/people/{ada.id}/delete").headers["location"] == f"/people/{ada.id}"
    assert "deactivated instead" in said(desk.get(f"/people/{ada.id}"))


def test_somebodys_session_is_ended(desk: Browser, people: People) -> None:
    ada = person(people, "admin")
    session = ada.api(headers={"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"})
    page = desk.get(f"/people/{ada.id}")
    assert "Firefox on Linux API" in said(page)
    (action,) = re.findall(r'action="(/people/[^"]+/sessions/[^"]+/end)"', page.text)
    assert desk.post(action).status_code == 303
    assert session.get("/auth/me").status_code == 401
    assert "Not logged in" in said(desk.get(f"/people/{ada.id}"))


def test_what_a_session_called_itself_is_text(desk: Browser, people: People) -> None:
    ada = person(people, "admin")
    ada.api(headers={"User-Agent": '"><script>alert(1)</script>'})
    assert "<script>alert" not in desk.get(f"/people/{ada.id}").text


def test_an_admin_reads_and_writes_nothing(reader: Browser, admin: Person, keeper: Person) -> None:
    for path in ("/people", f"/people/{keeper.id}"):
        page = reader.get(path)
        assert page.status_code == 200
        assert keeper.email in page.text
        assert re.findall(r'<form[^>]*action="([^"]+)"', page.text) == ["/logout"]
        assert 'href="/people/new"' not in page.text
    assert reader.get("/people/new").status_code == 403
    for path, fields in (
        ("/people/new", NEW),
        (f"/people/{admin.id}", {"email": admin.email, "role": "super_admin"}),
        (f"/people/{keeper.id}/deactivate", {}),
        (f"/people/{keeper.id}/delete", {}),
    ):
        assert reader.post(path, fields).status_code == 403
    assert admin.people.run("SELECT role FROM admins WHERE id = %s", [admin.id]) == [("admin",)]


def test_many_people_have_pages(desk: Browser, people: People) -> None:
    people.run(
        "INSERT INTO admins (id, email, role, password_hash) "
        "SELECT gen_random_uuid(), 'p' || n || '@example.com', 'admin', 'x' FROM generate_series(1, 30) n"
    )
    first = desk.get("/people")
    (following,) = re.findall(r'href="(/people\?cursor=[^"]+)"', first.text)
    second = desk.get(following)
    emails = re.findall(r"p\d+@example\.com", first.text + second.text)
    assert sorted(emails) == sorted(f"p{n}@example.com" for n in range(1, 31))
