"""The forms of the first configuration: as little as there must be, the rest folded away."""

from __future__ import annotations

from admin_api.models import ModelBody
from admin_api.pages.controls import Kind, Tweak
from admin_api.pages.forms import Form, Group
from admin_api.providers import ProviderBody
from routing.providers import PROTOCOLS

BY_HAND = "other"
"""What is chosen where the catalog does not know the vendor; no vendor's slug."""

_ACCOUNT = ("name", "slug", "type", "base_url")
_DETAILS = ("api_version", "capabilities", "allow_private_network", "settings", "website")
_TWEAKS: dict[str, Tweak] = {
    "api_key": Tweak(label="API key", help="Write-only: it is sealed at once, and never shown again."),
    "slug": Tweak(help="Its name in addresses and records: small letters, digits, - and _."),
    "type": Tweak(
        label="Protocol",
        kind=Kind.CHOICE,
        choices=[(name, name.replace("_", " ")) for name in PROTOCOLS],
        help="Most vendors and servers speak openai_compatible.",
    ),
    "base_url": Tweak(label="Address", help="As the vendor's own client has it.", placeholder="https://…"),
    "allow_private_network": Tweak(
        label="Allow a private network", help="For a server on this machine, or near it."
    ),
}
KNOWN = Form(
    ProviderBody,
    Group("Key", "api_key"),
    Group("Account", *_ACCOUNT, *_DETAILS, is_advanced=True),
    **_TWEAKS,
)
UNKNOWN = Form(
    ProviderBody,
    Group("Account", *_ACCOUNT, "api_key", "allow_private_network"),
    Group("Details", "api_version", "capabilities", "settings", "website", is_advanced=True),
    **_TWEAKS,
)
MODEL = Form(
    ModelBody,
    Group("By hand", "model_id", "name", "capabilities"),
    Group("Prices", "input_price_per_1k", "output_price_per_1k", "price_unit", is_advanced=True),
    model_id=Tweak(label="Model", help="As the provider calls it."),
    capabilities=Tweak(help="What features may use it for."),
)
