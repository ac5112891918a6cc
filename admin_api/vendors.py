"""The catalog as it was shipped: vendors, their models and dated prices. It proposes; the database decides.

`catalog.json` names the vendors and what the price package lacks (capabilities, retirement dates, voices,
speech by the character); token prices come from the snapshot inside of `genai-prices`, without any network.
No job ever looks in here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from routing.providers import CODECS

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

_SECONDS = 3600
_PLACES = Decimal("1E-12")


@dataclass(frozen=True, slots=True)
class KnownPrice:
    """Dollars per 1,000 `price_unit` from `valid_from` on; None = as long as the model has been there.

    Of prices that rise with the length of a prompt it is the lowest step, of prices that change with the
    hour the highest.
    """

    valid_from: datetime | None
    price_unit: str = "tokens"
    input_price_per_1k: Decimal | None = None
    output_price_per_1k: Decimal | None = None
    cached_input_price_per_1k: Decimal | None = None
    cache_write_price_per_1k: Decimal | None = None
    batch_input_price_per_1k: Decimal | None = None
    batch_output_price_per_1k: Decimal | None = None


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model of a vendor. `prices` oldest first; `retires_at` the last day the vendor serves it."""

    model_id: str
    name: str
    capabilities: tuple[str, ...]
    context_window: int | None
    retires_at: date | None
    voices: tuple[str, ...]
    prices: tuple[KnownPrice, ...]


@dataclass(frozen=True, slots=True)
class Vendor:
    """A vendor as a provider row would hold it. `environment` are names of the variables in which people
    keep its key, the vendor's own first; `is_supported`: there is an adapter for its protocol."""

    slug: str
    name: str
    type: str
    base_url: str
    api_version: str | None
    settings: Mapping[str, Any]
    environment: tuple[str, ...]
    website: str | None
    needs_key: bool
    allow_private_network: bool
    models: tuple[KnownModel, ...]

    @property
    def is_supported(self) -> bool:
        """Whether workers can speak to it in this release."""
        return self.type in CODECS

    @property
    def capabilities(self) -> list[str]:
        """Of any of its models."""
        return sorted({capability for model in self.models for capability in model.capabilities})

    def model(self, model_id: str) -> KnownModel | None:
        """The model that the vendor calls so."""
        return next((model for model in self.models if model.model_id == model_id), None)


@cache
def vendors() -> Mapping[str, Vendor]:
    """All vendors by slug. The first call reads them, in about half a second."""
    document = json.loads(files("admin_api").joinpath("catalog.json").read_text())
    priced = _priced()
    return {entry["slug"]: _vendor(entry, document, priced) for entry in document["vendors"]}


def _vendor(
    entry: Mapping[str, Any], document: Mapping[str, Any], priced: Mapping[str, Sequence[ModelInfo]]
) -> Vendor:
    return Vendor(
        slug=entry["slug"],
        name=entry["name"],
        type=entry["type"],
        base_url=entry["base_url"],
        api_version=entry.get("api_version"),
        settings=entry.get("settings", {}),
        environment=tuple(entry["environment"]),
        website=entry.get("website"),
        needs_key=entry.get("needs_key", True),
        allow_private_network=entry.get("allow_private_network", False),
        models=tuple(_models(entry, document, priced.get(entry.get("priced_as", ""), ()))),
    )


def _models(
    entry: Mapping[str, Any], document: Mapping[str, Any], priced: Sequence[ModelInfo]
) -> Iterator[KnownModel]:
    """Those of the price package that our protocols can call, under what `catalog.json` says of them."""
    unwanted = [re.compile(pattern) for pattern in (*document["left_out"], *entry.get("left_out", ()))]
    wanted = re.compile(entry.get("only", ""))
    own = {model["model_id"]: model for model in entry.get("models", ())}
    known = {
        info.id: info
        for info in priced
        if not info.deprecated
        and wanted.search(info.id)
        and (info.id in own or not any(pattern.search(info.id) for pattern in unwanted))
    }
    retirements = {
        model_id: date.fromisoformat(day)
        for day, model_ids in entry.get("retires_at", {}).items()
        for model_id in model_ids
    }
    for model_id in sorted(known.keys() | own.keys()):
        said, info = own.get(model_id, {}), known.get(model_id)
        capabilities = said.get("capabilities") or _capabilities(model_id, document["capabilities"])
        yield KnownModel(
            model_id=model_id,
            name=said.get("name") or (info.name if info else None) or model_id,
            capabilities=tuple(capabilities),
            context_window=said.get("context_window") or (info.context_window if info else None),
            retires_at=retirements.get(model_id),
            voices=tuple(said.get("voices", ())),
            prices=_own_prices(said) if "prices" in said else _prices(info, capabilities),
        )


def _capabilities(model_id: str, rules: Sequence[Mapping[str, Any]]) -> Sequence[str]:
    found = (rule["are"] for rule in rules if re.search(rule["match"], model_id, re.IGNORECASE))
    return next(found, ["text"])


def _own_prices(said: Mapping[str, Any]) -> tuple[KnownPrice, ...]:
    return tuple(
        KnownPrice(
            valid_from=None,
            price_unit=price.get("price_unit", "tokens"),
            input_price_per_1k=_decimal(price.get("input_price_per_1k")),
            output_price_per_1k=_decimal(price.get("output_price_per_1k")),
        )
        for price in said["prices"]
    )


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


# --- the price package --------------------------------------------------------------------------------


def _priced() -> Mapping[str, Sequence[ModelInfo]]:
    """Models of each vendor. Imported here: 2,300 models take half a second, and few processes ask."""
    from genai_prices.data_snapshot import get_snapshot

    return {provider.id: provider.models for provider in get_snapshot().providers}


def _prices(info: ModelInfo | None, capabilities: Sequence[str]) -> tuple[KnownPrice, ...]:
    if info is None:
        return ()
    batch = next(
        (variant.prices for variant in info.price_variants or () if variant.when == {"processing": "batch"}),
        None,
    )
    dated = (_price(start, price, batch, capabilities) for start, price in _dated(info))
    return tuple(price for price in dated if price is not None)


def _dated(info: ModelInfo) -> list[tuple[datetime | None, ModelPrice]]:
    """The prices with the time from which each holds, oldest first. Of prices by the hour the highest."""
    from genai_prices.types import StartDateConstraint

    if not isinstance(info.prices, list):
        return [(None, info.prices)]
    always = [entry.prices for entry in info.prices if not isinstance(entry.constraint, StartDateConstraint)]
    from_day = [
        (datetime.combine(entry.constraint.start_date, time(), UTC), entry.prices)
        for entry in info.prices
        if isinstance(entry.constraint, StartDateConstraint)
    ]
    highest = max(always, key=lambda price: _amount(price, "input_mtok") or Decimal(0), default=None)
    first: list[tuple[datetime | None, ModelPrice]] = [] if highest is None else [(None, highest)]
    return [*first, *sorted(from_day, key=lambda pair: pair[0])]


_INPUT = {"transcription": "input_audio_mtok"}
_OUTPUT = {"speech": "output_audio_mtok", "image": "output_image_mtok"}


def _price(
    start: datetime | None, price: ModelPrice, batch: ModelPrice | None, capabilities: Sequence[str]
) -> KnownPrice | None:
    """The row that says this; None where we count nothing that it is about."""
    by_character = _amount(price, "input_mchars")
    if by_character is not None:
        return KnownPrice(start, "characters", _thousandth(by_character))
    by_hour = _amount(price, "input_audio_hours") or _amount(price, "audio_hours")
    if by_hour is not None and "transcription" in capabilities:
        return KnownPrice(start, "seconds", (by_hour * 1000 / _SECONDS).quantize(_PLACES))
    kind = capabilities[0]
    entered = _first(price, _INPUT.get(kind), "input_mtok")
    left = _first(price, _OUTPUT.get(kind), "output_mtok")
    if entered is None and left is None:
        return None
    return KnownPrice(
        start,
        "tokens",
        input_price_per_1k=_thousandth(entered),
        output_price_per_1k=_thousandth(left),
        cached_input_price_per_1k=_thousandth(_amount(price, "cache_read_mtok")),
        cache_write_price_per_1k=_thousandth(_amount(price, "cache_write_mtok")),
        batch_input_price_per_1k=_thousandth(_amount(batch, "input_mtok")),
        batch_output_price_per_1k=_thousandth(_amount(batch, "output_mtok")),
    )


def _first(price: ModelPrice, *names: str | None) -> Decimal | None:
    amounts = (_amount(price, name) for name in names if name is not None)
    return next((amount for amount in amounts if amount is not None), None)


def _amount(price: ModelPrice | None, name: str) -> Decimal | None:
    """Dollars per million (characters and tokens) or per hour; of a price in steps the first."""
    value = getattr(price, name, None)
    base = value if value is None or isinstance(value, Decimal) else value.base
    return base if base is None else Decimal(base)


def _thousandth(per_million: Decimal | None) -> Decimal | None:
    return None if per_million is None else per_million / 1000
