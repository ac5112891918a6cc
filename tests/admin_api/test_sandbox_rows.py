"""The sandbox's rows, over an installation of an earlier release."""

from __future__ import annotations

from standalone import sandbox_rows
from standalone.api_client import ApiClient
from tests.admin_api.conftest import Api


def test_models_of_a_release_that_could_less_are_brought_up_to_date(api: Api) -> None:
    with ApiClient(f"http://{api.host}:{api.port}", api.token) as client:
        models = sandbox_rows.install(client, "http://127.0.0.1:9")
        for assignment in client.pages("/api/v1/feature-assignments"):
            client.call("DELETE", f"/api/v1/feature-assignments/{assignment['id']}")
        text = models["sandbox-text"]
        client.call("PATCH", f"/api/v1/models/{text}", {"capabilities": ["text", "image"], "name": "Mine"})

        assert sandbox_rows.install(client, "http://127.0.0.1:10") == models

        found = client.call("GET", f"/api/v1/models/{text}")
        assert set(found["capabilities"]) >= {"text", "vision", "image"}
        assert found["name"] == "Mine"
        assert len(list(client.pages("/api/v1/feature-assignments"))) == 16
        urls = {provider["base_url"] for provider in client.pages("/api/v1/providers")}
        assert all(url.startswith("http://127.0.0.1:10/") for url in urls)
