"""Assignments: the list with its swap and undo, and the page of one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from admin_api.pages.formats import DASH
from store.settings import Settings
from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.nouns import assigned, feature_body, model_body, provider_body
from tests.admin_api.pages.conftest import Browser, said
from tests.usage_rows import Ledger, call

FEATURE = "tarot_reading"
PAGE = f"/assignments/{FEATURE}"
OWN = "p-tarot-reading"  # the provider that `assigned` makes for it


def targets(api: Api, feature: str = FEATURE) -> list[str]:
    """The vendors' ids of the models that serve the feature, in order."""
    names = {model["id"]: model["model_id"] for model in api.get("/models?limit=200").json()["items"]}
    (found,) = api.get(f"/feature-assignments?feature={feature}").json()["items"]
    return [names[target["model_id"]] for target in found["targets"]]


def undo_of(page: httpx.Response) -> str:
    """Where the message's button posts."""
    (address,) = re.findall(r'action="(/assignments/\w+/undo\?version=\d+)"', page.text)
    return str(address)


def listed(page: httpx.Response) -> list[str]:
    """The models in the editor, in their order."""
    return re.findall(r'name="target" value="([^"]+)"', page.text)


def typed(*models: str, **fields: str) -> dict[str, str | Sequence[str]]:
    """What the editor sends."""
    return {
        "target": models,
        "max_retries": "3",
        "retry_delay_seconds": "2",
        "strategy": "priority",
        "is_active": "on",
        "parameters": "{}",
        **fields,
    }


# --- the list -----------------------------------------------------------------------------------------


def test_without_a_model_the_list_leads_to_the_setup(desk: Browser) -> None:
    page = desk.get("/assignments")
    assert "No model yet" in said(page)
    assert 'href="/setup"' in page.text


def test_the_list_tells_who_serves_what_by_category(desk: Browser, api: Api) -> None:
    assigned(api, models=3)
    page = desk.get("/assignments")
    text = said(page)
    assert "astrology" in text
    assert re.search(r"tarot_reading text · standard m0 p-tarot-reading m1 p-tarot-reading m2", text)
    assert "15 features have no model" in text
    assert re.search(r"cv_draft text · standard unassigned . .*? Assign", text)
    assert re.search(r"image_generation image · standard unassigned . no model can: add one", text)
    assert FEATURE not in said(desk.get("/assignments?capability=speech"))


def test_features_come_page_by_page(desk: Browser, api: Api) -> None:
    for number in range(10):
        api.made("/features", feature_body(f"zz_{number}"))
    first = desk.get("/assignments")
    further = re.search(r'href="(/assignments\?cursor=[^"]+)" rel="next"', first.text)
    assert further is not None
    assert "zz_9" not in said(first)
    assert "zz_9" in said(desk.get(further.group(1)))


def test_readers_find_no_button_that_writes(api: Api, reader: Browser) -> None:
    assigned(api, models=2, prompt_template={"system": "Be kind.", "user": "{{ cards }}"})
    for path in ("/assignments", PAGE):
        page = reader.get(path)
        assert page.status_code == 200
        assert not re.search(r"<button[^>]*>(Swap|Save|Add|Unassign|Preview)", page.text)
        assert not re.search(r'method="post" action="/assign', page.text)
    assert "Be kind." in said(reader.get(PAGE))
    assert reader.post("/assignments", {"feature": FEATURE}).status_code == 403
    assert reader.post(PAGE, typed(f"{OWN}/m0")).status_code == 403


def test_a_swap_is_one_click_and_so_is_its_undo(desk: Browser, api: Api) -> None:
    assigned(api, models=3)
    answer = desk.post("/assignments", {"feature": FEATURE, f"to:{FEATURE}": f"{OWN}/m2"})
    assert answer.status_code == 303
    assert targets(api) == ["m2", "m0", "m1"]
    page = desk.get("/assignments")
    assert re.search(r"Swapped at configuration version \d+\.", said(page))
    assert desk.post(undo_of(page), {"back": "/assignments"}).headers["location"] == "/assignments"
    assert targets(api) == ["m0", "m1", "m2"]
    assert re.search(r"Taken back at configuration version \d+\.", said(desk.get("/assignments")))


def test_the_version_that_is_told_is_the_one_jobs_see(desk: Browser, api: Api, people: People) -> None:
    assigned(api, models=2)
    desk.post("/assignments", {"feature": FEATURE, f"to:{FEATURE}": f"{OWN}/m1"})
    ((version,),) = people.run("SELECT version FROM config_state")
    assert f"Swapped at configuration version {version}." in said(desk.get("/assignments"))


def test_what_is_unassigned_is_assigned_in_one_click_and_taken_back(desk: Browser, api: Api) -> None:
    assigned(api)
    desk.post("/assignments", {"feature": "cv_draft", "to:cv_draft": f"{OWN}/m0"})
    assert targets(api, "cv_draft") == ["m0"]
    desk.post(undo_of(desk.get("/assignments")))
    assert api.get("/feature-assignments?feature=cv_draft").json()["items"] == []
    assert "cv_draft is unassigned again" in said(desk.get("/assignments"))


def test_an_undo_that_would_lose_anothers_change_is_refused(desk: Browser, api: Api) -> None:
    made = assigned(api, models=3)
    desk.post("/assignments", {"feature": FEATURE, f"to:{FEATURE}": f"{OWN}/m2"})
    address = undo_of(desk.get("/assignments"))
    api.patch(f"/feature-assignments/{made['id']}", {"max_retries": 7})
    assert desk.post(address, {"back": "/assignments"}).status_code == 303
    assert "was changed since" in said(desk.get("/assignments"))
    assert targets(api) == ["m2", "m0", "m1"]


@pytest.mark.parametrize("model", ["p-tarot-reading/gone", ""])
def test_a_swap_to_nothing_is_told(desk: Browser, api: Api, model: str) -> None:
    assigned(api)
    answer = desk.post("/assignments", {"feature": FEATURE, f"to:{FEATURE}": model})
    assert answer.status_code == 422
    assert "There is no model" in said(answer)


def test_models_that_cannot_serve_are_not_offered(desk: Browser, api: Api) -> None:
    provider = api.made("/providers", provider_body("own"))
    for name, members in (
        ("fit", {}),
        ("off", {"is_active": False}),
        ("gone", {"retires_at": "2020-01-01"}),
        ("mute", {"capabilities": ["speech"]}),
    ):
        api.made("/models", model_body(provider, name, **members))
    page = desk.get(PAGE)
    assert "<option>own/fit" in page.text
    for name in ("off", "gone", "mute"):
        assert f"own/{name}" not in page.text
    api.patch(f"/providers/{provider['id']}", {"is_active": False})
    assert "own/fit" not in desk.get(PAGE).text


# --- the editor ---------------------------------------------------------------------------------------


def test_models_are_moved_without_being_saved(desk: Browser, api: Api) -> None:
    assigned(api, models=3)
    names = [f"{OWN}/m{n}" for n in range(3)]
    assert listed(desk.get(PAGE)) == names

    def after(act: str, **fields: str) -> list[str]:
        answer = desk.post(PAGE, typed(*names, do=act, system="Typed and not saved.", **fields))
        assert answer.status_code == 200
        assert "Typed and not saved." in answer.text
        return [name.rpartition("/")[2] for name in listed(answer)]

    assert after("up 2") == ["m0", "m2", "m1"]
    assert after("down 0") == ["m1", "m0", "m2"]
    assert after("up 0") == ["m0", "m1", "m2"]
    assert after("remove 1") == ["m0", "m2"]
    assert after("up 99") == ["m0", "m1", "m2"]
    provider = api.made("/providers", provider_body("own"))
    api.made("/models", model_body(provider, "new"))
    assert after("add", add="own/new") == ["m0", "m1", "m2", "new"]
    assert targets(api) == ["m0", "m1", "m2"]


def test_the_whole_is_saved_and_can_be_undone(desk: Browser, api: Api) -> None:
    made = assigned(api, models=2, prompt_template={"system": "Old.", "user": None})
    fields = typed(
        *(f"{OWN}/m1", f"{OWN}/m0"),
        system="New.",
        user="Read {{ cards }}.\n",
        max_retries="5",
        timeout_seconds="12.5",
        deadline_seconds="60",
        parameters='{"temperature": 0.5}',
        use_any_active_model="on",
    )
    assert desk.post(PAGE, fields).status_code == 303
    saved = api.get(f"/feature-assignments/{made['id']}").json()
    assert saved["prompt_template"] == {"system": "New.", "user": "Read {{ cards }}.\n", "version": 2}
    assert (saved["max_retries"], saved["timeout_seconds"], saved["deadline_seconds"]) == (5, 12.5, 60)
    assert (saved["parameters"], saved["use_any_active_model"]) == ({"temperature": 0.5}, True)
    assert targets(api) == ["m1", "m0"]
    page = desk.get(PAGE)
    text = said(page)
    for words in (
        "Saved at configuration version",
        "system prompt edited",
        "user prompt written",
        "in force",
    ):
        assert words in text
    assert "max retries: 3 → 5" in text
    desk.post(undo_of(page), {"back": PAGE})
    back = api.get(f"/feature-assignments/{made['id']}").json()
    assert (back["prompt_template"]["system"], back["max_retries"]) == ("Old.", 3)


def test_what_is_saved_as_it_was_is_no_change(desk: Browser, api: Api) -> None:
    assigned(api, max_retries=3, retry_delay_seconds=2)
    assert desk.post(PAGE, typed(f"{OWN}/m0")).status_code == 303
    assert "Nothing was changed" in said(desk.get(PAGE))


def test_a_chosen_model_counts_even_where_its_button_was_not_pressed(desk: Browser, api: Api) -> None:
    assigned(api)
    path = "/assignments/cv_draft"
    assert "No model yet" in said(desk.get(path))
    assert desk.post(path, typed(add=f"{OWN}/m0")).status_code == 303
    assert targets(api, "cv_draft") == ["m0"]


def test_what_is_wrong_stands_where_it_was_typed(desk: Browser, api: Api) -> None:
    assigned(api, models=2)
    names = (f"{OWN}/m1", f"{OWN}/m0")
    bad = desk.post(PAGE, typed(*names, user="ok\n{% if %}", system="kept"))
    assert bad.status_code == 422
    assert re.search(r'id="user"[^>]*aria-invalid="true" aria-describedby="user-error"', bad.text)
    assert "wrong in line 2" in said(bad)
    assert listed(bad) == list(names)
    assert "kept" in bad.text
    bad = desk.post(PAGE, typed(*names, max_retries="many", parameters="[1"))
    assert 'id="field-max_retries-error"' in bad.text
    assert 'id="field-parameters-error"' in bad.text
    assert "Name the model that serves the feature" in said(desk.post(PAGE, typed()))
    assert targets(api) == ["m0", "m1"]


def test_who_is_overtaken_is_told(desk: Browser, api: Api) -> None:
    made = assigned(api)
    found = re.search(r'name="etag" value="([^"]+)"', desk.get(PAGE).text)
    assert found is not None
    api.patch(f"/feature-assignments/{made['id']}", {"max_retries": 9})
    fields = typed(f"{OWN}/m0", etag=found.group(1).replace("&#34;", '"'))
    answer = desk.post(PAGE, fields)
    assert answer.status_code == 412
    assert "Somebody changed this meanwhile" in said(answer)
    assert "Stored now: 9" in said(answer)


def test_the_prompt_is_previewed_with_a_sample(desk: Browser, api: Api) -> None:
    assigned(api)

    def preview(**fields: str) -> httpx.Response:
        answer = desk.post(PAGE, typed(f"{OWN}/m0", do="preview", **fields))
        assert answer.status_code == 200
        return answer

    shown = preview(system="", user="اقرأ {{ cards[0] }} <script>", sample='{"cards": ["البرج"]}')
    assert '<pre class="output" dir="auto">اقرأ البرج &lt;script&gt;</pre>' in shown.text
    assert "line 2" in said(preview(user="x\n{{ missing }}", sample='{"cards": ["The Star"]}'))
    assert "'cards' is a required property" in said(preview(user="x", sample="{}"))
    assert "The sample is not JSON" in said(preview(user="x", sample="{oops"))
    assert "The Star" in said(desk.get(PAGE))  # the schema's example, to begin with
    assert api.get("/feature-assignments?feature=" + FEATURE).json()["items"][0]["prompt_template"] is None


def test_the_page_tells_who_would_win_and_why_others_would_not(desk: Browser, api: Api) -> None:
    made = assigned(api, models=3)
    api.patch(f"/models/{made['targets'][0]['model_id']}", {"is_active": False})
    text = said(desk.get(PAGE + "?plan=free&user_id=u-1"))
    assert re.search(r"m0 p-tarot-reading passed over .*? inactive", text)
    assert re.search(r"m1 p-tarot-reading wins", text)
    assert re.search(r"m2 p-tarot-reading backup", text)
    assert 'value="free"' in desk.get(PAGE + "?plan=free").text


def test_the_variants_of_a_weighted_assignment_are_compared(
    desk: Browser, api: Api, settings: Settings
) -> None:
    made = assigned(api, models=3)
    assert "Variants" not in said(desk.get(PAGE))
    weighted = [{"model_id": each["model_id"], "weight": n} for n, each in enumerate(made["targets"])]
    api.patch(f"/feature-assignments/{made['id']}", {"strategy": "weighted", "targets": weighted})
    one = {"feature": FEATURE, "provider": OWN, "model": "m1"}
    with closing(Ledger(settings)) as ledger:
        ledger.record(
            *(call(**one, cost_usd="0.03") for _ in range(2)),
            call(**one, outcome="failed", error_class="timeout", cost_usd=None),
            call(**{**one, "model": "m2"}, cost_usd="0.01"),
            call(**{**one, "model": "m3"}, cost_usd="9"),
            call(**one, finished_at=datetime.now(UTC) - timedelta(days=8), cost_usd="9"),
        )

    told = said(desk.get(PAGE))

    for row in (
        rf"m0 0 % 0 % 0( {DASH}){{3}}",
        r"m1 33\.3 % 75 % 3 66\.7 % 120 ms \$0\.03 \$0\.06 \+\?",
        r"m2 66\.7 % 25 % 1 100 %",
    ):
        assert re.search(f"{OWN}/{row}", told), told[told.index("Variants") :]


def test_versions_are_compared_and_returned_to(desk: Browser, api: Api, people: People) -> None:
    made = assigned(api, prompt_template={"system": "One line.\nAnother.", "user": None})
    api.patch(f"/feature-assignments/{made['id']}", {"prompt_template": {"system": "One line.\nChanged."}})
    ((email,),) = people.run("SELECT email FROM admins WHERE role = 'super_admin' ORDER BY id LIMIT 1")
    page = desk.get(PAGE)
    assert f'href="{PAGE}/compare?version=1"' in page.text
    assert email in said(page)
    page = desk.get(f"{PAGE}/compare?version=1")
    assert email in said(page)
    assert re.search(r"<del[^>]*>Changed\.</del>", page.text)
    assert re.search(r"<ins[^>]*>Another\.</ins>", page.text)
    assert "it says what is in force" in said(desk.get(f"{PAGE}/compare"))
    assert desk.post(f"{PAGE}/rollback?version=1").status_code == 303
    assert "Back to version 1 at configuration version" in said(desk.get(PAGE))
    current: Json = api.get(f"/feature-assignments/{made['id']}").json()
    assert current["prompt_template"]["system"] == "One line.\nAnother."
    assert desk.get(f"{PAGE}/compare?version=99").status_code == 404
    assert desk.post(f"{PAGE}/rollback?version=99").status_code == 404


def test_a_feature_is_unassigned(desk: Browser, api: Api) -> None:
    assigned(api)
    assert 'data-confirm="Unassign' in desk.get(PAGE).text
    assert desk.post(f"{PAGE}/remove").headers["location"] == "/assignments"
    assert api.get("/feature-assignments").json()["items"] == []
    assert desk.post(f"{PAGE}/remove").status_code == 404
    assert desk.get("/assignments/no_such").status_code == 404
