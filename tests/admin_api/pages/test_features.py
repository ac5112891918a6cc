"""Features' pages: the list, and the form that makes, changes and removes them."""

from __future__ import annotations

from tests.admin_api.conftest import Api
from tests.admin_api.nouns import assigned, feature_body
from tests.admin_api.pages.conftest import Browser, said

ARABIC = "تحية <script>alert(1)</script>"
TYPED = {
    "name": "greeting",
    "category": "chat",
    "description": ARABIC,
    "capability": "text",
    "lane": "interactive",
    "is_active": "on",
    "input_schema": '{"properties": {"name": {"type": "string"}}, "example": {"name": "Ada"}}',
    "output_schema": "",
    "max_queued": "",
    "keep_days": "7",
    "store_output": "on",
}


def test_the_list_tells_what_is_assigned(desk: Browser, api: Api) -> None:
    assigned(api)
    text = said(desk.get("/features"))
    assert "tarot_reading A reading of the drawn cards. astrology text standard assigned" in text
    assert "cv_draft" in text
    assert "unassigned" in text


def test_a_feature_is_made_and_leads_to_its_assignment(desk: Browser, api: Api) -> None:
    form = desk.get("/features/new")
    assert "additionalProperties" in form.text  # something to write over
    answer = desk.post("/features/new", TYPED)
    assert answer.headers["location"] == "/assignments/greeting"
    assert "greeting is there" in said(desk.get("/assignments/greeting"))
    made = api.get("/features/greeting").json()
    assert (made["description"], made["lane"], made["max_queued"]) == (ARABIC, "interactive", None)
    assert made["input_schema"]["example"] == {"name": "Ada"}
    assert (made["keep_days"], made["store_input"], made["store_output"]) == (7, False, True)


def test_what_people_type_is_text_in_its_own_direction(desk: Browser, api: Api) -> None:
    api.made("/features", feature_body(description=ARABIC))
    for path in ("/features", "/features/greeting/edit", "/assignments/greeting"):
        page = desk.get(path)
        assert "<script>alert" not in page.text
        assert "تحية" in page.text
    assert '<small dir="auto">تحية' in desk.get("/features").text


def test_what_is_wrong_stands_at_its_field(desk: Browser, api: Api) -> None:
    wrong = {**TYPED, "name": "Not so", "input_schema": '{"type": "nonsense"}'}
    answer = desk.post("/features/new", {**wrong, "input_schema": "{oops"})
    assert answer.status_code == 422
    assert 'id="field-input_schema-error"' in answer.text
    assert 'value="Not so"' in answer.text
    assert 'id="field-name-error"' in desk.post("/features/new", wrong).text
    answer = desk.post("/features/new", {**wrong, "name": "greeting"})
    assert "no valid JSON Schema" in said(answer)
    assert api.get("/features/greeting").status_code == 404


def test_a_feature_is_changed(desk: Browser, api: Api) -> None:
    api.made("/features", feature_body())
    path = "/features/greeting/edit"
    assert 'name="name"' not in desk.get(path).text  # it stays for good
    changed = {**TYPED, "category": "", "max_queued": "7", "is_active": None}
    assert desk.post(path, changed).headers["location"] == path
    stored = api.get("/features/greeting").json()
    assert (stored["category"], stored["max_queued"], stored["is_active"]) == (None, 7, False)
    desk.post("/features/greeting/active", {"is_active": "yes"})
    assert api.get("/features/greeting").json()["is_active"] is True


def test_what_serves_jobs_is_not_deleted_by_accident(desk: Browser, api: Api) -> None:
    api.made("/features", feature_body())
    made = assigned(api, "greeting")
    page = desk.get("/features/greeting/edit")
    assert 'data-confirm="Delete greeting' in page.text
    assert "unassign it before you delete it" in said(page)
    refused = desk.post("/features/greeting/delete")
    assert refused.status_code == 409
    assert "is in use by the assignments of: greeting" in said(refused)
    api.delete(f"/feature-assignments/{made['id']}")
    assert desk.post("/features/greeting/delete").headers["location"] == "/features"
    assert "greeting is deleted" in said(desk.get("/features"))
    assert api.get("/features/greeting").status_code == 404


def test_readers_see_the_schemas_and_write_nothing(api: Api, reader: Browser) -> None:
    api.made("/features", feature_body(input_schema={"type": "object", "example": {"a": 1}}))
    page = reader.get("/features/greeting/edit")
    assert '"example"' in said(page)
    assert "<textarea" not in page.text
    assert 'action="/features' not in page.text
    assert "/features/new" not in reader.get("/features").text
    assert reader.get("/features/new").status_code == 403
    assert reader.post("/features/greeting/delete").status_code == 403
