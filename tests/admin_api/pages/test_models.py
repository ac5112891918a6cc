"""A model's page: what it is, what it costs and when, and which features it is used for."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.nouns import assigned, model_body, provider_body
from tests.admin_api.pages.conftest import Browser, said

Made = dict[str, Any]


@pytest.fixture
def model(api: Api) -> Json:
    """A model that serves nothing yet."""
    provider = api.made("/providers", provider_body("fresh"))
    return api.made("/models", model_body(provider, "fresh-1", name="Fresh"))


@pytest.fixture
def path(model: Json) -> str:
    return f"/models/{model['id']}"


def _targets(api: Api, feature: str) -> list[str] | None:
    found = api.get("/feature-assignments", params={"feature": feature}).json()["items"]
    return [target["model_id"] for target in found[0]["targets"]] if found else None


def _undo(page: Any) -> str:
    found = re.search(r'action="(/models/[^"]+/undo\?[^"]+)"', page.text)
    assert found is not None
    return found.group(1).replace("&amp;", "&")


def test_a_model_is_added_to_the_provider_that_was_looked_at(desk: Browser, api: Api, people: People) -> None:
    provider = api.made("/providers", provider_body())
    address = f"/models/new?provider={provider['id']}"
    assert f'<option value="{provider["id"]}" selected>' in desk.get(address).text
    typed = {
        "provider_id": provider["id"],
        "model_id": "acme-1",
        "name": "نموذج",
        "capabilities": ["text"],
        "is_active": "on",
        "input_price_per_1k": "0.0015",
        "price_unit": "tokens",
    }
    refused = desk.post(address, {**typed, "input_price_per_1k": "cheap"})
    assert refused.status_code == 422
    assert 'id="field-input_price_per_1k-error"' in refused.text
    made = desk.post(address, typed).headers["location"]
    page = desk.get(made)
    assert "نموذج was added" in said(page)
    assert "$1.50" in said(page)
    assert people.run("SELECT capabilities, supports_streaming FROM ai_models") == [(["text"], False)]
    again = desk.post(address, typed)
    assert again.status_code == 409
    assert 'id="field-model_id-error"' in again.text


def test_readers_see_a_model_but_cannot_change_it(reader: Browser, api: Api, model: Json, path: str) -> None:
    page = reader.get(path)
    for words in ("fresh-1", "tarot_reading", "nobody serves it", "None is known"):
        assert words in said(page)
    assert f'action="{path}' not in page.text
    assert 'type="checkbox"' not in page.text
    assert reader.post(f"{path}/use", {"features": "tarot_reading"}).status_code == 403
    assert _targets(api, "tarot_reading") is None


def test_a_change_keeps_the_prices(desk: Browser, api: Api, people: People, model: Json, path: str) -> None:
    api.made(f"{path}/prices", {"input_price_per_1k": "0.002"})
    typed = {
        "provider_id": model["provider_id"],
        "model_id": "fresh-1",
        "name": "Renamed",
        "capabilities": ["text", "vision"],
        "retires_at": "2020-01-01",
    }
    assert desk.post(path, typed).status_code == 303
    page = desk.get(path)
    assert "Renamed was saved" in said(page)
    assert "retired this model after 2020-01-01" in said(page)
    assert "$2.00" in said(page)
    assert people.run("SELECT count(*) FROM model_prices") == [(1,)]
    assert desk.post(path, {**typed, "capabilities": []}).status_code == 422


def test_prices_are_dated(desk: Browser, people: People, path: str) -> None:
    assert desk.post(f"{path}/prices", {"price_unit": "tokens"}).status_code == 422
    now = {"price_unit": "tokens", "input_price_per_1k": "0.001", "output_price_per_1k": "0.004"}
    assert desk.post(f"{path}/prices", now).status_code == 303
    ahead = {**now, "input_price_per_1k": "0.0005", "valid_from": "2099-01-01T00:00"}
    assert desk.post(f"{path}/prices", ahead).status_code == 303
    page = desk.get(path)
    assert "holds from 2099-01-01 00:00 UTC" in said(page)
    for words in ("$1.00", "$4.00", "$0.50", "in force", "ahead"):
        assert words in said(page)
    assert desk.post(f"{path}/prices", ahead).status_code == 409
    (delete,) = re.findall(rf'action="({path}/prices/[^"]+/delete)"', page.text)
    assert desk.post(delete).status_code == 303
    ((kept,),) = people.run("SELECT id FROM model_prices")
    refused = desk.post(f"{path}/prices/{kept}/delete")
    assert refused.status_code == 409
    assert "has been in force" in said(refused)


def test_ticked_features_move_in_one_act_and_back(
    desk: Browser, api: Api, people: People, model: Json, path: str
) -> None:
    before = assigned(api, "tarot_reading", models=2, prompt_template={"user": "Read {{ cards }}."})
    old = [target["model_id"] for target in before["targets"]]
    page = desk.get(path)
    assert "p-tarot-reading/m0" in said(page)
    before_version = people.run("SELECT version FROM config_state")
    assert desk.post(f"{path}/use", {"features": ["tarot_reading", "cv_draft"]}).status_code == 303
    assert _targets(api, "tarot_reading") == [model["id"], *old]
    assert _targets(api, "cv_draft") == [model["id"]]
    assert people.run("SELECT version FROM config_state") > before_version
    page = desk.get(path)
    assert "Fresh serves tarot_reading, cv_draft now" in said(page)
    assert re.search(r'value="tarot_reading" checked', page.text)
    assert desk.post(_undo(page)).status_code == 303
    assert "Undone: tarot_reading, cv_draft as before" in said(desk.get(path))
    assert _targets(api, "tarot_reading") == old
    assert _targets(api, "cv_draft") is None


def test_a_backup_that_is_ticked_goes_to_the_front(desk: Browser, api: Api, model: Json, path: str) -> None:
    before = assigned(api, "tarot_reading", models=2)
    old = [target["model_id"] for target in before["targets"]]
    targets = [{"model_id": each} for each in (*old, model["id"])]
    api.patch(f"/feature-assignments/{before['id']}", {"targets": targets})
    assert "backup of p-tarot-reading/m0" in said(desk.get(path))
    desk.post(f"{path}/use", {"features": "tarot_reading"})
    assert _targets(api, "tarot_reading") == [model["id"], *old]


def test_all_move_or_none(desk: Browser, api: Api, model: Json, path: str) -> None:
    desk.post(f"{path}/deactivate")
    page = desk.post(f"{path}/use", {"features": ["cv_draft", "tarot_reading"]})
    assert page.status_code == 422
    assert "cv_draft: Model 'fresh-1' is inactive" in said(page)
    assert re.search(r'value="cv_draft" checked', page.text)
    api.patch(path, {"is_active": True})
    page = desk.post(f"{path}/use", {"features": ["cv_draft", "daily_zodiac_tts"]})
    assert "has not the capability" in said(page)
    assert _targets(api, "cv_draft") is None


def test_a_feature_is_not_taken_away_by_unticking(desk: Browser, api: Api, path: str, model: Json) -> None:
    desk.post(f"{path}/use", {"features": "cv_draft"})
    page = desk.post(f"{path}/use", {"served": "cv_draft", "features": "tarot_reading"})
    assert page.status_code == 422
    assert "cv_draft: to take a feature away" in said(page)
    assert 'href="/assignments/cv_draft"' in page.text
    assert _targets(api, "cv_draft") == [model["id"]]
    assert _targets(api, "tarot_reading") is None


def test_an_undo_does_not_undo_what_others_did_since(desk: Browser, api: Api, path: str, model: Json) -> None:
    desk.post(f"{path}/use", {"features": "cv_draft"})
    undo = _undo(desk.get(path))
    made = api.get("/feature-assignments").json()["items"][0]
    api.patch(f"/feature-assignments/{made['id']}", {"max_retries": 7})
    answer = desk.post(undo, {"back": path})
    assert answer.headers["location"] == path
    assert "was changed since" in said(desk.get(path))
    assert _targets(api, "cv_draft") == [model["id"]]


def test_a_model_in_use_is_not_deleted(desk: Browser, api: Api, people: People) -> None:
    made = assigned(api, "tarot_reading")
    path = f"/models/{made['model_id']}"
    page = desk.post(f"{path}/delete")
    assert page.status_code == 409
    assert "was not deleted: it is in use" in said(page)
    assert f'action="{path}/deactivate"' in page.text
    api.delete(f"/feature-assignments/{made['id']}")
    assert desk.post(f"{path}/delete").headers["location"].startswith("/providers/")
    assert people.run("SELECT count(*) FROM ai_models") == [(0,)]
