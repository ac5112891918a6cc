"""`orrery import-env`: moves vendors' keys from environment variables into the database, once.

Nothing else reads such a variable. A key in the environment is shown by `ps e` and `docker inspect`, is
inherited by every child process, and can be neither rotated nor taken away while things run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import select, text
from sqlalchemy.orm import Session, undefer

from admin_api.keys import ApiKey, last4
from admin_api.vendors import Vendor, vendors
from standalone.errors import CommandError
from store import audit
from store.ids import new_id
from store.orm import engine
from store.settings import Settings
from store.tables import AIProvider
from store.vault import Keyring, Sealed, Vault, VaultError

_KEY: TypeAdapter[ApiKey] = TypeAdapter(ApiKey)

Did = Literal["created", "replaced the key of", "added a key to", "left as it was:", "skipped"]


class ImportEnvError(CommandError):
    """Nothing was imported; the message names the variable and the fix."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What was done with one variable. `last4` is as much of the key as people see."""

    variable: str
    slug: str
    did: Did
    last4: str = ""
    why: str = ""

    def __str__(self) -> str:
        shown = f" (…{self.last4})" if self.last4 else ""
        return f"{self.variable}: {self.did} provider {self.slug}{shown}{self.why}"


def import_env(settings: Settings, environment: Mapping[str, str]) -> list[Imported]:
    """Store the keys that `environment` holds as the catalog's vendors name them, in one transaction.

    A provider that is there keeps everything but its key. Models are not touched.

    Raises: ImportEnvError where there is none, or one that is no key; VaultError for an unreadable keyring.
    """
    found = [
        (vendor, variable, environment[variable])
        for vendor in vendors().values()
        if (variable := _set(vendor.environment, environment)) is not None
    ]
    if not found:
        names = ", ".join(name for vendor in vendors().values() for name in vendor.environment)
        raise ImportEnvError(f"No key was found. Set one or more of {names}, for this command alone.")
    keys = [_checked(variable, value) for _, variable, value in found]
    vault = Vault(Keyring.load(settings))
    owner = engine(settings.database(), application="orrery import-env")
    try:
        with Session(owner, autoflush=False) as session, session.begin():
            session.execute(text("SELECT version FROM config_state FOR UPDATE"))
            audit.acting(session, "cli")
            return [
                _stored(session, vault, vendor, variable, key)
                for (vendor, variable, _), key in zip(found, keys, strict=True)
            ]
    finally:
        owner.dispose()


def told(done: Sequence[Imported]) -> str:
    """What was done and what is left to do, for people. Without any key."""
    imported = [one for one in done if one.did != "skipped"]
    lines = [str(one) for one in done]
    if imported:
        lines += [
            "Unset them now, also where they are set at login or in files; Orrery reads them nowhere else:",
            f"  unset {' '.join(one.variable for one in imported)}",
        ]
    if any(one.did == "created" for one in imported):
        lines.append(
            "Models: GET /api/v1/catalog shows them, POST /api/v1/catalog/{provider}/install adds them."
        )
    return "\n".join(lines)


def _set(names: Sequence[str], environment: Mapping[str, str]) -> str | None:
    return next((name for name in names if environment.get(name, "").strip()), None)


def _checked(variable: str, value: str) -> str:
    try:
        return _KEY.validate_python(value.strip()).get_secret_value()
    except ValidationError:  # its text holds the value
        raise ImportEnvError(
            f"{variable} holds no key: 1 to 4096 printable ASCII characters without spaces. "
            "Nothing was imported."
        ) from None


def _stored(session: Session, vault: Vault, vendor: Vendor, variable: str, key: str) -> Imported:
    if not vendor.is_supported:
        why = f": this release has no adapter for {vendor.type}. Keep the variable for a later one."
        return Imported(variable, vendor.slug, "skipped", why=why)
    row = session.scalar(
        select(AIProvider).where(AIProvider.slug == vendor.slug).options(undefer(AIProvider.sealed_key))
    )
    did: Did = "created"
    if row is None:
        row = _new(vendor)
        session.add(row)
    elif _opened(vault, row) == key:
        return Imported(variable, vendor.slug, "left as it was:", last4(key))
    else:
        did = "added a key to" if row.sealed_key is None else "replaced the key of"
    row.key_version += 1
    row.sealed_key = vault.seal(
        key, table="ai_providers", row=str(row.id), field="api_key", version=row.key_version
    ).blob
    row.key_last4 = last4(key)
    session.flush()
    why = "" if row.is_active else ", which is inactive"
    return Imported(variable, vendor.slug, did, row.key_last4, why)


def _new(vendor: Vendor) -> AIProvider:
    return AIProvider(
        id=new_id(),
        slug=vendor.slug,
        name=vendor.name,
        type=vendor.type,
        base_url=vendor.base_url,
        api_version=vendor.api_version,
        settings=dict(vendor.settings),
        capabilities=vendor.capabilities,
        allow_private_network=vendor.allow_private_network,
        website=vendor.website,
        key_version=0,
        is_active=True,
    )


def _opened(vault: Vault, row: AIProvider) -> str | None:
    """The stored key; None where there is none that opens."""
    if row.sealed_key is None:
        return None
    try:
        return vault.open(
            Sealed(row.sealed_key),
            table="ai_providers",
            row=str(row.id),
            field="api_key",
            version=row.key_version,
        )
    except VaultError:
        return None
