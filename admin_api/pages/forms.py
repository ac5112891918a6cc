"""One form for all nouns, made of the body that the API takes.

    PROVIDER = Form(
        ProviderBody,
        Group("Account", "name", "slug", "type", "base_url", "api_key"),
        Group("Limits", "requests_per_minute", "timeout_seconds", is_advanced=True),
        type=Tweak(label="Wire protocol", choices=[...]),
    )

    PROVIDER.view(request)                                   to add one
    PROVIDER.view(request, get_provider(id, session))        to change one: filled, with its ETag
    PROVIDER.body(sent)                                      what was typed, for `create_provider`
    PROVIDER.changes(sent)                                   ... for `change_provider`, a PATCH

What the body refuses stands at its field when the page is shown again, with what was typed; secrets are never
shown, and stay as they are where nothing is typed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Generic, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from admin_api.errors import field_errors
from admin_api.etags import tag_of
from admin_api.pages.again import Again, again_of
from admin_api.pages.controls import Choice, Control, Filled, Tweak, flattened
from admin_api.pages.route import SentForm
from admin_api.refusals import FieldError, FieldsRefused, Invalid

B = TypeVar("B", bound=BaseModel)


class Group:
    """Fields under a heading; advanced ones are folded away until somebody looks for them."""

    def __init__(self, title: str, *names: str, is_advanced: bool = False) -> None:
        self.title = title
        self.names = names
        self.is_advanced = is_advanced


@dataclass(frozen=True, slots=True)
class FilledGroup:
    """A group with what its fields show. `is_open`: unfolded, since something in it is wrong."""

    title: str
    is_advanced: bool
    is_open: bool
    fields: Sequence[Filled]


@dataclass(frozen=True, slots=True)
class View:
    """A form as it is shown, by the macro `form`.

    `action`: where it is sent. `etag`: of what it changes, "" where it makes something. `problem`: what is
    wrong with all of it.
    """

    action: str
    etag: str
    groups: Sequence[FilledGroup]
    problem: str


class Form(Generic[B]):
    """A form of a body. `tweaks` are by the name of their field."""

    def __init__(self, body: type[B], *groups: Group, **tweaks: Tweak) -> None:
        self._body = body
        self._groups = groups
        self._controls = {
            name: Control.of(name, body.model_fields[name], tweaks.get(name, Tweak()))
            for group in groups
            for name in group.names
        }

    def view(
        self,
        request: Request,
        stored: BaseModel | None = None,
        *,
        action: str | None = None,
        typed: SentForm | None = None,
        given: Mapping[str, Any] | None = None,
        choices: Mapping[str, Sequence[Choice]] | None = None,
        hints: Mapping[str, str] | None = None,
        beside: Collection[str] = (),
    ) -> View:
        """The form, empty, filled with `stored`, or with what was typed where it was refused.

        Args:
            stored: what the API shows of the noun.
            action: where to send it; by default to the page's own address.
            typed: what was sent, where the page is shown again although nothing was refused.
            given: values to begin with where nothing is stored.
            choices: by field, where they are known with the request only.
            hints: by secret field, how the stored one ends.
            beside: fields that the page shows by other means, with what is wrong with them.
        """
        action = action or request.url.path
        again = again_of(request)
        if again is not None and again.action != action:
            again = None
        errors = flattened(_errors(again))
        filler = _Filler(
            stored=stored,
            sent=again.sent if typed is None and again is not None else typed,
            is_stale=again is not None and again.problem.status == HTTPStatus.PRECONDITION_FAILED,
            given=given or {},
            choices=choices or {},
            hints=hints or {},
            errors=errors,
        )
        groups = [self._filled(group, filler) for group in self._groups]
        shown = {*self._controls, *beside}
        elsewhere = [message for name, message in errors.items() if name not in shown]
        return View(
            action=action if not request.url.query else f"{action}?{request.url.query}",
            etag="" if stored is None else (typed is not None and typed.get("etag")) or tag_of(stored),
            groups=groups,
            problem="" if again is None else _said(again, elsewhere),
        )

    def changes(self, sent: SentForm) -> dict[str, Any]:
        """What was typed, as a PATCH takes it. Raises FieldsRefused, naming each unreadable field."""
        document, unread = self._read(sent)
        if unread:
            raise FieldsRefused(unread)
        return document

    def body(self, sent: SentForm) -> B:
        """What was typed, as the API takes it. Raises FieldsRefused, naming each field that is not right."""
        document, unread = self._read(sent)
        told = {name: value for name, value in document.items() if value is not None}
        try:
            made = self._body.model_validate(told)
        except ValidationError as error:
            named = {each.field for each in unread}
            unread += [each for each in field_errors(error) if each.field not in named]
        if unread:
            raise FieldsRefused(unread)
        return made

    def _read(self, sent: SentForm) -> tuple[dict[str, Any], list[FieldError]]:
        document: dict[str, Any] = {}
        unread: list[FieldError] = []
        for control in self._controls.values():
            try:
                document |= control.read(sent)
            except Invalid as refused:
                unread += refused.errors
        return document, unread

    def _filled(self, group: Group, filler: _Filler) -> FilledGroup:
        fields = [filler.fill(self._controls[name]) for name in group.names]
        is_open = any(each.error or each.stored for each in fields)
        return FilledGroup(group.title, group.is_advanced, is_open, fields)


@dataclass(frozen=True, slots=True)
class _Filler:
    """What controls show. `sent`: what was typed before; `is_stale`: `stored` is newer than that."""

    stored: BaseModel | None
    sent: SentForm | None
    is_stale: bool
    given: Mapping[str, Any]
    choices: Mapping[str, Sequence[Choice]]
    hints: Mapping[str, str]
    errors: Mapping[str, str]

    def fill(self, control: Control) -> Filled:
        name = control.name
        start = self.given.get(name, control.default)
        kept = control.shown(start if self.stored is None else getattr(self.stored, name, None))
        value = kept if self.sent is None else control.typed(self.sent)
        differs = self.is_stale and self.stored is not None and value != kept
        return Filled(
            control=control,
            value=value,
            error=self.errors.get(name, ""),
            stored=_in_words(kept) if differs else "",
            hint=self.hints.get(name, ""),
            choices=self.choices.get(name, control.choices),
        )


def _errors(again: Again | None) -> list[FieldError]:
    if again is None:
        return []
    return [FieldError(error.field, error.message) for error in again.problem.errors]


def _said(again: Again, elsewhere: Sequence[str]) -> str:
    if again.problem.status == HTTPStatus.PRECONDITION_FAILED:
        return (
            "Somebody changed this meanwhile, so nothing was saved. What differs now is noted at its field. "
            "Save again to have it your way."
        )
    told = [again.problem.detail, *(message for message in elsewhere if message != again.problem.detail)]
    return " ".join(told)


def _in_words(value: str | list[str] | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else value or "empty"
