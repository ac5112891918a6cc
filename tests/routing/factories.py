"""Values of routing with everything but the point of a test filled in."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from routing.values import (
    Assignment,
    Call,
    Capability,
    Feature,
    Model,
    Plan,
    Price,
    PriceUnit,
    Prompt,
    Provider,
    Request,
    Route,
)
from store.vault import Keyring, Vault

KEY = "sk-test-canary-4711-abcdefgh"
VAULT = Vault(Keyring("k1:" + base64.b64encode(bytes(range(32))).decode()))


def provider(
    base_url: str = "https://api.example.com/v1",
    *,
    protocol: str = "openai_compatible",
    key: str | None = None,
    slug: str = "acme",
    **fields: Any,
) -> Provider:
    """A provider; with `key`, sealed by `VAULT` as the database would hold it."""
    row = Provider(
        id=uuid4(),
        slug=slug,
        protocol=protocol,
        base_url=base_url,
        api_version=None,
        organization=None,
        settings={},
        sealed_key=None,
        key_version=0,
        allow_shared_for_normal_admins=True,
        allow_private_network=True,
        timeout_seconds=None,
        is_active=True,
    )
    row = replace(row, **fields)
    if key is None:
        return row
    sealed = VAULT.seal(key, table="ai_providers", row=str(row.id), field="api_key", version=1)
    return replace(row, sealed_key=sealed, key_version=1)


def model(provider_id: UUID | None = None, **fields: Any) -> Model:
    row = Model(
        id=uuid4(),
        provider_id=provider_id or uuid4(),
        model_id="acme-large",
        capabilities=frozenset({"text"}),
        context_window=None,
        max_output_tokens=None,
        default_parameters={},
        constraints={},
        is_active=True,
        sort_order=0,
    )
    return replace(row, **fields)


def price(**fields: Any) -> Price:
    row = Price(
        valid_from=datetime(2026, 1, 1, tzinfo=UTC),
        unit=PriceUnit.TOKENS,
        input_per_1k=Decimal("0.001"),
        output_per_1k=Decimal("0.002"),
    )
    return replace(row, **fields)


def route(owner: Provider | None = None, *, price_row: Price | None = None, **model_fields: Any) -> Route:
    owner = owner or provider()
    return Route(owner, model(owner.id, **model_fields), price_row)


def feature(capability: Capability = Capability.TEXT, **fields: Any) -> Feature:
    row = Feature(
        id=uuid4(),
        name="daily_zodiac_text",
        capability=capability,
        lane="standard",
        input_schema={"type": "object", "properties": {"sign": {}, "language": {}}},
        is_active=True,
    )
    return replace(row, **fields)


def assignment(*, system: str | None = None, user: str | None = None, **fields: Any) -> Assignment:
    prompt = Prompt(uuid4(), 1, system, user) if system or user else None
    row = Assignment(
        id=uuid4(),
        feature_id=uuid4(),
        strategy="priority",
        targets=(),
        prompt=prompt,
        parameters={},
        max_retries=0,
        retry_delay_seconds=0,
        timeout_seconds=None,
        deadline_seconds=None,
        use_any_active_model=False,
        is_active=True,
    )
    return replace(row, **fields)


def plan(
    *routes: Route,
    capability: Capability = Capability.TEXT,
    of: Feature | None = None,
    **assigned: Any,
) -> Plan:
    return Plan(1, of or feature(capability), assignment(**assigned), routes)


def png() -> bytes:
    """A picture of one pixel."""
    return base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
    )


def request(values: Mapping[str, Any] | None = None, **fields: Any) -> Request:
    return Request(feature="daily_zodiac_text", input=values or {"sign": "aries"}, **fields)


def call(
    capability: Capability = Capability.TEXT,
    *,
    to: Route | None = None,
    parameters: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Call:
    defaults: dict[str, Any] = {"system": "Be brief.", "user": "Hello, stars."}
    return Call(capability, to or route(), parameters=parameters or {}, **{**defaults, **fields})
