"""Bodies that are valid, to be varied by tests."""

from __future__ import annotations

from typing import Any

from tests.admin_api.conftest import Api, Json

KEY = "sk-canary-1f0c9a7e5b3d"


def provider_body(slug: str = "acme", **members: Any) -> Json:
    return {
        "slug": slug,
        "name": "Acme",
        "type": "openai_compatible",
        "base_url": "http://127.0.0.1:9/v1",
        "allow_private_network": True,
        **members,
    }


def model_body(provider: Json, model_id: str = "acme-1", **members: Any) -> Json:
    return {"provider_id": provider["id"], "model_id": model_id, "name": "Acme One", **members}


def feature_body(name: str = "greeting", **members: Any) -> Json:
    return {"name": name, "capability": "text", "lane": "interactive", **members}


def assigned(api: Api, feature: str = "tarot_reading", *, models: int = 1, **members: Any) -> Json:
    """An assignment with a provider and models of its own."""
    provider = api.made("/providers", provider_body(f"p-{feature.replace('_', '-')}"))
    ids = [api.made("/models", model_body(provider, f"m{n}"))["id"] for n in range(models)]
    targets = [{"model_id": model_id} for model_id in ids]
    return api.made("/feature-assignments", {"feature_name": feature, "targets": targets, **members})
