"""The versions of an assignment as people read them: who, what, and how they differ from what is now."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from admin_api.pages import diffs
from admin_api.pages.diffs import Diff
from admin_api.pagination import PageQuery, encoded
from admin_api.people import PersonQuery, list_admins
from admin_api.refusals import NotFound
from admin_api.security import Principal
from admin_api.versions import Change, Version, list_versions

_LINES, _WIDTH = 40, 240  # of a comparison
_SHORT = 80  # characters of a change that is told in one line

_CALLED = {
    "prompt_template/system": "system prompt",
    "prompt_template/user": "user prompt",
    "targets": "models",
}


@dataclass(frozen=True, slots=True)
class Compared:
    """What returning to a version would change."""

    version: Version
    diff: Diff


def saved_by(versions: Sequence[Version], session: Session, caller: Principal) -> dict[UUID, str]:
    """E-mail addresses of who saved the versions."""
    wanted = {each.saved_by for each in versions} - {None}
    if not wanted:
        return {}
    people = list_admins(PersonQuery(limit=200), session, caller).items
    return {person.id: person.email for person in people if person.id in wanted}


def compared(assignment_id: UUID, number: int, session: Session) -> Compared:
    """The version with this number beside the one in force. Raises NotFound."""
    version = _version(assignment_id, number, session)
    now = list_versions(assignment_id, PageQuery(limit=1), session).items[0]
    was, is_now = _members(version), _members(now)
    differing = [name for name in is_now.keys() | was.keys() if was.get(name) != is_now.get(name)]
    return Compared(
        version,
        diffs.diff(
            {name: is_now.get(name) for name in sorted(differing)},
            {name: was.get(name) for name in sorted(differing)},
            lines=_LINES,
            width=_WIDTH,
        ),
    )


def told(change: Change) -> str:
    """A change in one line: its values where they are short."""
    name = _CALLED.get(change.field, change.field.replace("_", " "))
    if change.field.startswith("prompt_template"):
        act = "written" if change.before is None else "removed" if change.after is None else "edited"
        return f"{name} {act}"
    values = " → ".join(_in_words(each) for each in (change.before, change.after))
    return f"{name}: {values}" if len(values) <= _SHORT else name


def _version(assignment_id: UUID, number: int, session: Session) -> Version:
    before = PageQuery(limit=1, cursor=encoded([number + 1]))
    found = list_versions(assignment_id, before, session).items
    if not found or found[0].version != number:
        raise NotFound(f"There is no version {number} of this assignment.")
    return found[0]


def _members(version: Version) -> Mapping[str, Any]:
    prompt = version.prompt_template
    return {
        **{name.replace("_", " "): value for name, value in version.settings.items()},
        "models": "\n".join(target.name or str(target.model_id) for target in version.targets),
        "system prompt": prompt and prompt.system,
        "user prompt": prompt and prompt.user,
    }


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(each).partition("/")[2] or str(each) for each in value) or "none"
    if isinstance(value, str):
        return value
    return "none" if value is None or value == {} else json.dumps(value, ensure_ascii=False)
