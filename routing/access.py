"""Whether a caller may use a provider or a model, and by whose key.

One decision for everybody who asks: the resolver, for each route of a job, and `GET /access`, for people.
Pure: the caller and four facts in, one word out.
"""

from __future__ import annotations

from enum import StrEnum

from routing.values import Caller


class Access(StrEnum):
    """What a caller may do with a provider or a model."""

    AVAILABLE_SHARED = "AVAILABLE_SHARED"
    AVAILABLE_PERSONAL = "AVAILABLE_PERSONAL"
    NO_ACCESS = "NO_ACCESS"
    DISABLED = "DISABLED"


def access(
    caller: Caller, *, is_active: bool, has_personal_key: bool, use_shared_api: bool, is_shared: bool
) -> Access:
    """The caller's access, as in the table of the outside contract.

    A super admin, and an application without owner (which has no keys of its own), may always use the shared
    key. Everybody else needs the provider's leave for it.

    Args:
        is_active: the provider, and the model where it is about one.
        has_personal_key: the caller stored a key for the provider and it is active.
        use_shared_api: the caller prefers the shared key where it may be used; means nothing without a
            personal key.
        is_shared: the provider's `allow_shared_for_normal_admins`.
    """
    if not is_active:
        return Access.DISABLED
    is_application = caller.admin_id is None
    may_share = is_shared or is_application or caller.role == "super_admin"
    has_key = has_personal_key and not is_application
    if has_key and not (use_shared_api and may_share):
        return Access.AVAILABLE_PERSONAL
    return Access.AVAILABLE_SHARED if may_share else Access.NO_ACCESS
