"""Prompt templates that mean harm, through the route that renders them for people."""

from __future__ import annotations

import re

import pytest

from tests.admin_api.conftest import Api
from tests.admin_api.nouns import feature_body, model_body, provider_body
from tests.routing.attacks import ATTACKS, VARIABLES

# Traces of Python that a rendered prompt, or the words about one, must not hold.
_INSIDE = re.compile(r"<class|<function|<built-in|<generator| object at 0x|root:x:0|Traceback")


@pytest.mark.parametrize("every", [2, pytest.param(1, marks=pytest.mark.full)])
def test_no_template_escapes_through_explain(api: Api, every: int) -> None:
    provider = api.made("/providers", provider_body(api_key="k"))
    model = api.made("/models", model_body(provider))
    api.made("/features", feature_body("prey", input_schema={"type": "object"}))
    assignment = api.made("/feature-assignments", {"feature_name": "prey", "model_id": model["id"]})
    address = f"/feature-assignments/{assignment['id']}"
    refused = []
    attacks = dict(list(ATTACKS.items())[::every])
    for name, template in attacks.items():
        saved = api.patch(address, {"prompt_template": {"user": template}})
        if saved.status_code != 200:
            assert saved.status_code == 422, (name, saved.text)
            assert saved.json()["errors"][0]["field"].startswith("prompt_template"), name
            refused.append(name)
            continue
        answer = api.post(f"{address}/explain", {"input": VARIABLES})
        assert answer.status_code == 200, (name, answer.text)
        found = answer.json()
        assert found["prompt"] is None, name
        assert found["prompt_error"], name
        assert not _INSIDE.search(found["prompt_error"]), found["prompt_error"]
    assert len(attacks) >= 40
    assert len(attacks) - len(refused) >= 20, "many can only be stopped while they are rendered"
    assert api.patch(address, {"prompt_template": {"user": "{{ big | length }}"}}).status_code == 200
    assert api.post(f"{address}/explain", {"input": VARIABLES}).json()["prompt"]["user"] == "100000"
