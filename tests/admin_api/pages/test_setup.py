"""The first configuration: from nothing to an answer, left and resumed at every step."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from store.settings import Settings
from tests.admin_api.conftest import Api, Json
from tests.admin_api.nouns import assigned, model_body, provider_body
from tests.admin_api.pages.conftest import Browser, said
from tests.sandbox import Sandbox
from tests.workers.conftest import until
from workers.doorbells import LANES
from workers.run import WorkerProcess


@pytest.fixture
def worker(settings: Settings) -> Iterator[WorkerProcess]:
    process = WorkerProcess(settings, lanes=LANES, threads=2)
    process.start()
    yield process
    process.stop()


@pytest.fixture
def typed(sandbox: Sandbox) -> dict[str, Any]:
    """The sandbox, as somebody types it by hand."""
    return {
        "name": "Own server",
        "slug": "own",
        "type": "openai_compatible",
        "base_url": sandbox.openai,
        "api_key": "any-key",
        "allow_private_network": "on",
    }


def step(desk: Browser) -> str:
    """The step that the setup goes on with."""
    answer = desk.get("/setup")
    assert answer.status_code == 303, "all is done"
    return answer.headers["location"].removeprefix("/setup/").partition("?")[0]


def current(page: str) -> str:
    """The step that the page's progress line is at."""
    found = re.search(r'<li class="[^"]*" aria-current="step">(?:<\w+>)?([^<]+)', page)
    assert found is not None
    return found.group(1)


def test_from_nothing_to_an_answer(
    desk: Browser, api: Api, typed: dict[str, Any], worker: WorkerProcess
) -> None:
    assert step(desk) == "provider"
    chosen = desk.get("/setup/provider")
    assert current(chosen.text) == "Add a provider"
    assert "orrery up --sandbox" in said(chosen)
    added = desk.post("/setup/provider?vendor=other", typed).headers["location"]
    assert added.startswith("/setup/test?provider=")

    assert step(desk) == "test"
    assert "Go on" not in said(desk.get(added))
    tested = desk.post(added)
    assert "It works." in said(tested)
    assert current(tested.text) == "Test it"
    onward = re.search(r'class="button primary" href="(/setup/model\?[^"]+)"', tested.text)
    assert onward is not None
    assert re.search(r'href="/setup/model\?provider=[^"]+&amp;model_id=gpt', tested.text)

    model = onward.group(1).replace("&amp;", "&")
    assigning = desk.post(model, {"model_id": "gpt-own", "name": "Own", "capabilities": "text"})
    assert assigning.status_code == 303, assigning.text
    assert step(desk) == "assign"
    page = desk.get(assigning.headers["location"])
    assert re.search(r'value="chat_assistant" checked', page.text)
    assert 'value="daily_zodiac_tts"' not in page.text  # it needs a voice
    running = desk.post(assigning.headers["location"], {"features": ["chat_assistant", "cv_draft"]})
    assert running.headers["location"] == "/setup/run?feature=chat_assistant"
    assert {each["feature_name"] for each in api.get("/feature-assignments").json()["items"]} == {
        "chat_assistant",
        "cv_draft",
    }

    assert step(desk) == "run"
    ran = desk.post(running.headers["location"], {"input.message": "مرحبا"}).headers["location"]
    job = ran.rpartition("job=")[2]
    until(lambda: api.get(f"/jobs/{job}").json()["state"] == "succeeded")
    page = desk.get(ran)
    for words in ("An answer from orbit", "succeeded", "gpt-own of own", "See the overview"):
        assert words in said(page)
    assert "data-poll" not in page.text  # nothing moves any more
    assert desk.get("/setup").status_code == 200
    assert "All is in orbit" in said(desk.get("/setup"))


def test_while_a_job_runs_the_page_looks_again(desk: Browser, api: Api) -> None:
    assigned(api, "chat_assistant")
    page = desk.get("/setup/run")
    assert "No worker runs" in said(page)
    ran = desk.post("/setup/run?feature=chat_assistant", {"input.message": "hello"}).headers["location"]
    assert 'data-poll="1"' in desk.get(ran).text
    assert "orbit" not in said(desk.get(ran))


def test_a_known_vendor_asks_for_its_key_alone(desk: Browser, api: Api) -> None:
    path = "/setup/provider?vendor=anthropic"
    page = desk.get(path)
    assert page.text.index('id="field-api_key"') < page.text.index('<details class="group"')
    kept = dict(re.findall(r'name="(name|slug|base_url|type)" value="([^"]+)"', page.text))
    fields = {**kept, "type": "anthropic", "capabilities": "text"}
    refused = desk.post(path, {**fields, "api_key": ""})
    assert refused.status_code == 422
    assert "Anthropic needs a key." in said(refused)
    answer = desk.post(path, {**fields, "api_key": "sk-canary-setup-1234"})
    assert answer.headers["location"].startswith("/setup/test?provider=")
    (made,) = api.get("/providers").json()["items"]
    assert (made["slug"], made["base_url"]) == ("anthropic", "https://api.anthropic.com")
    assert "sk-canary-setup" not in desk.get(answer.headers["location"]).text
    assert "added" in said(desk.get("/setup/provider"))
    assert desk.get("/setup/provider?vendor=nobody").status_code == 404

    model = f"/setup/model?provider={made['id']}"
    (known, *_) = re.findall(r'name="known" value="([^"]+)"', desk.get(model).text)
    assert desk.post(model, {"known": known}).status_code == 303
    (added,) = api.get("/models").json()["items"]
    assert added["model_id"] == known
    assert added["input_price_per_1k"] is not None


def test_a_provider_that_refuses_can_be_mended(desk: Browser, typed: dict[str, Any]) -> None:
    path = desk.post("/setup/provider?vendor=other", {**typed, "api_key": "bad-key"}).headers["location"]
    page = desk.post(path)
    assert "It does not work." in said(page)
    provider = path.rpartition("=")[2]
    assert f'href="/providers/{provider}/edit"' in page.text
    assert step(desk) == "test"


def test_what_is_wrong_stands_at_its_field(desk: Browser, api: Api, typed: dict[str, Any]) -> None:
    path = "/setup/provider?vendor=other"
    refused = desk.post(path, {**typed, "slug": "No slug!", "name": "<script>alert(1)</script>"})
    assert refused.status_code == 422
    assert 'id="field-slug-error"' in refused.text
    assert "<script>alert" not in refused.text
    made = api.made("/providers", provider_body("own"))
    model = f"/setup/model?provider={made['id']}"
    assert 'id="field-name-error"' in desk.post(model, {"model_id": "x", "capabilities": "text"}).text
    added = api.made("/models", model_body(made))
    nothing = desk.post(f"/setup/assign?provider={made['id']}&model={added['id']}")
    assert nothing.status_code == 422
    assert "Choose a feature" in said(nothing)
    api.made("/feature-assignments", {"feature_name": "chat_assistant", "model_id": added["id"]})
    assert 'id="field-input.message-error"' in desk.post("/setup/run?feature=chat_assistant", {}).text


def test_a_step_that_is_too_early_leads_to_the_one_before(desk: Browser, api: Api) -> None:
    for path in ("/setup/run", "/setup/test", "/setup/model", "/setup/assign"):
        assert desk.get(path).headers["location"] == "/setup/provider"
    made: Json = api.made("/providers", provider_body("own"))
    answer = desk.get(f"/setup/assign?provider={made['id']}")
    assert answer.headers["location"] == f"/setup/model?provider={made['id']}"
    assert desk.get("/setup/test").headers["location"] == f"/setup/test?provider={made['id']}"


def test_the_setup_is_for_who_may_write(reader: Browser) -> None:
    for path in ("/setup", "/setup/provider", "/setup/run"):
        assert reader.get(path).status_code == 403
