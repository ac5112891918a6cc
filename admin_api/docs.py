"""The interactive API page. Nothing comes from elsewhere: the wheel fastapi-swagger brings Swagger UI."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from admin_api.errors import Problem

_ASSETS = "/docs/assets"


class Documented(FastAPI):
    """FastAPI whose schema knows the body of problem answers, to which every operation refers."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        document = super().openapi()
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        document["components"]["schemas"] |= {**problem.pop("$defs"), "Problem": problem}
        return document


def install(app: FastAPI) -> None:
    """Serve `/docs` and its assets."""
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=f"{app.title} API",
        swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{_ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{_ASSETS}/favicon-32x32.png",
        swagger_ui_parameters={"validatorUrl": None},  # its default sends the schema to a public server
    )
    page.headers["Content-Security-Policy"] = _policy(bytes(page.body).decode())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return page

    app.mount(_ASSETS, StaticFiles(packages=[("fastapi_swagger", "resources")]), name="docs-assets")


def _policy(page: str) -> str:
    """What the page may do: run our scripts and the one inside of it, and call this server. Swagger UI writes
    styles into its elements, and its pictures are `data:`."""
    inline = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = (b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in inline)
    return "; ".join(
        (
            "default-src 'none'",
            " ".join(("script-src 'self'", *(f"'sha256-{digest}'" for digest in hashes))),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
