"""The catalog's pages: vendors, the models of one, and installing those that were chosen."""

from __future__ import annotations

import re

from tests.admin_api.conftest import Api, People
from tests.admin_api.nouns import KEY
from tests.admin_api.pages.conftest import Browser, said
from tests.sandbox import Sandbox


def test_vendors_come_first_and_models_of_one_at_a_time(reader: Browser) -> None:
    vendors = reader.get("/catalog")
    assert "OpenAI" in said(vendors)
    assert 'href="/catalog?vendor=openai"' in vendors.text
    assert len(vendors.content) < 22_000
    models = reader.get("/catalog?vendor=openai")
    assert "gpt-5.4-mini" in said(models)
    assert "$0.75" in said(models)
    assert len(models.content) < 22_000
    assert 'method="post" action="/catalog' not in models.text
    assert 'type="checkbox"' not in models.text
    assert reader.get("/catalog?vendor=nobody").status_code == 404


def test_models_are_filtered_and_paged(desk: Browser) -> None:
    text = said(desk.get("/catalog?vendor=openai&capability=&q=TTS"))
    assert "tts-1" in text
    assert "gpt-5.4-mini" not in text
    speech = said(desk.get("/catalog?vendor=openai&capability=speech"))
    assert "tts-1" in speech
    assert "gpt-5.4-mini" not in speech
    assert "No model fits" in said(desk.get("/catalog?vendor=openai&q=%3Cscript%3E"))
    second = desk.get("/catalog?vendor=openai&page=2")
    assert 'href="/catalog?vendor=openai&amp;page=1"' in second.text


def test_what_is_chosen_is_installed(desk: Browser, api: Api, people: People, sandbox: Sandbox) -> None:
    address = "/catalog?vendor=openai"
    chosen = {"models": ["gpt-5.4-mini", "tts-1"], "base_url": sandbox.openai, "test": "on"}
    refused = desk.post(address, chosen)
    assert refused.status_code == 422
    assert 'id="field-api_key-error"' in refused.text
    for model in chosen["models"]:
        assert re.search(rf'name="models" value="{model}"[^>]* checked', refused.text)
    refused = desk.post(address, {**chosen, "api_key": "bad-key", "allow_private_network": "on"})
    assert "Trying it failed" in said(refused)
    assert people.run("SELECT count(*) FROM ai_providers") == [(0,)]
    made = desk.post(address, {**chosen, "api_key": KEY, "allow_private_network": "on"})
    page = desk.get(made.headers["location"])
    assert "2 models installed" in said(page)
    assert people.run("SELECT model_id FROM ai_models ORDER BY 1") == [("gpt-5.4-mini",), ("tts-1",)]


def test_more_is_added_to_what_is_installed(desk: Browser, api: Api, people: People) -> None:
    api.made("/catalog/openai/install", {"api_key": KEY, "models": ["tts-1"], "test": False})
    page = desk.get("/catalog?vendor=openai&q=tts-1")
    assert "installed" in said(page)
    assert 'aria-label="Choose tts-1"' not in page.text
    assert 'type="password"' not in page.text
    made = desk.post("/catalog?vendor=openai", {"models": "gpt-5.4-mini", "add_to_existing": "on"})
    assert made.status_code == 303
    assert people.run("SELECT count(*), max(key_version) FROM ai_models, ai_providers") == [(2, 1)]


def test_a_vendor_without_key_or_list_is_installed_alone(desk: Browser, people: People) -> None:
    page = desk.get("/catalog?vendor=ollama")
    assert "You name its models yourself" in said(page)
    assert 'name="api_key"' not in page.text
    assert desk.post("/catalog?vendor=ollama", {}).status_code == 303
    assert people.run("SELECT slug, allow_private_network FROM ai_providers") == [("ollama", True)]
