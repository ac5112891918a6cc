"""Points an installation at the sandbox: providers, models and an assignment for every feature it can serve.

The rows are data (`sandbox_rows.json`), written through the admin API like anybody's. What an administrator
assigned already is left alone.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from standalone.api_client import ApiClient

SANDBOX_KEY = "sandbox-key"
"""The sandbox takes any key; this one says what it is."""


def rows() -> dict[str, Any]:
    """The sandbox's configuration: providers, models, models per capability, prompts per feature."""
    content: dict[str, Any] = json.loads(files("standalone").joinpath("sandbox_rows.json").read_text())
    return content


def install(api: ApiClient, sandbox_url: str, *, key: str = SANDBOX_KEY) -> dict[str, str]:
    """Add what is missing, also to models of an earlier release; repair addresses of a sandbox that moved;
    returns model row ids by model id."""
    wanted = rows()
    providers = _providers(api, wanted, sandbox_url, key)
    models = _models(api, wanted, providers)
    assigned = {a["feature_name"] for a in api.pages("/api/v1/feature-assignments")}
    for feature in api.pages("/api/v1/features"):
        targets = [models[name] for name in wanted["capability_models"].get(feature["capability"], [])]
        if targets and feature["name"] not in assigned:
            body = {"feature_name": feature["name"], "model_id": targets[0]}
            if len(targets) > 1:
                body["backup_model_id"] = targets[1]
            if feature["name"] in wanted["prompts"]:
                body["prompt_template"] = wanted["prompts"][feature["name"]]
            api.call("POST", "/api/v1/feature-assignments", body)
    return models


def _providers(api: ApiClient, wanted: dict[str, Any], sandbox_url: str, key: str) -> dict[str, str]:
    known = {provider["slug"]: provider for provider in api.pages("/api/v1/providers")}
    ids: dict[str, str] = {}
    for row in wanted["providers"]:
        body = {name: value for name, value in row.items() if name != "path"}
        body["base_url"] = sandbox_url + row["path"]
        body["allow_private_network"] = True  # it lives on this machine
        provider = known.get(row["slug"])
        if provider is None:
            provider = api.call("POST", "/api/v1/providers", {**body, "api_key": key})
        elif provider["base_url"] != body["base_url"]:
            moved = {"base_url": body["base_url"], "api_key": key}
            provider = api.call("PATCH", f"/api/v1/providers/{provider['id']}", moved)
        ids[row["slug"]] = provider["id"]
    return ids


def _models(api: ApiClient, wanted: dict[str, Any], providers: dict[str, str]) -> dict[str, str]:
    known = {(model["provider_id"], model["model_id"]): model for model in api.pages("/api/v1/models")}
    ids: dict[str, str] = {}
    for row in wanted["models"]:
        body = {name: value for name, value in row.items() if name != "provider"}
        body["provider_id"] = providers[row["provider"]]
        model = known.get((body["provider_id"], body["model_id"]))
        if model is None:
            model = api.call("POST", "/api/v1/models", body)
        elif set(row["capabilities"]) - set(model["capabilities"]):  # of a release that could less
            both = sorted({*row["capabilities"], *model["capabilities"]})
            api.call("PATCH", f"/api/v1/models/{model['id']}", {"capabilities": both})
        ids[row["model_id"]] = model["id"]
    return ids
