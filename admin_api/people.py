"""Admins: the people who may log in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, ClassVar, Literal
from uuid import UUID

from fastapi import APIRouter, Body, Query, Response, status
from pydantic import AfterValidator, ConfigDict, Field
from sqlalchemy import Select, func, or_, select, update
from sqlalchemy.orm import Session

from admin_api import fields
from admin_api.auth import NewPassword
from admin_api.credentials import LONGEST_EMAIL, checked_email, hash_password
from admin_api.etags import tagged
from admin_api.fields import Stamps
from admin_api.pagination import Page, PageQuery, page_of
from admin_api.refusals import Conflict, NotFound
from admin_api.security import Actor, Current, GuardedRoute, Principal, allow_reading, allow_writing
from admin_api.sessions import Reading, Writing
from store.ids import new_id
from store.tables import Admin, AdminSecondFactor, AdminSession, AppToken, AuditEntry

router = APIRouter(prefix="/admins", tags=["people"], route_class=GuardedRoute)

PersonRole = Literal["super_admin", "admin"]
Email = Annotated[
    str,
    AfterValidator(checked_email),
    Field(
        max_length=LONGEST_EMAIL,
        description="Kept in lower case.",
        json_schema_extra={"pattern": r"^[!-?A-~]+@[!-?A-~]+$"},
    ),
]


class PersonBody(fields.Body):
    """A person as clients send it."""

    READ_ONLY: ClassVar[frozenset[str]] = fields.Body.READ_ONLY | {"has_second_factor", "last_login_at"}

    email: Email
    role: PersonRole
    is_active: Annotated[
        bool, Field(description="false: sessions and tokens of this person are refused at once.")
    ] = True


class NewPersonBody(PersonBody):
    """A person to be, with a password to begin with."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"email": "ada@example.com", "role": "admin", "password": "four words like these"}]
        }
    )

    password: NewPassword


class Person(Stamps):
    """A person as the API shows it. `has_second_factor`: null where you are an admin and it is not you."""

    email: str
    role: PersonRole
    is_active: bool
    has_second_factor: bool | None


class ListedPerson(Person):
    """A person in a list. `last_login_at`: null, too, where you are an admin and it is not you."""

    last_login_at: datetime | None


class PersonQuery(PageQuery):
    role: PersonRole | None = None
    is_active: bool | None = None


Changes = Annotated[fields.JsonObject, Body(description="The members to replace, each as a whole.")]


@router.get("")
@allow_reading
def list_admins(
    query: Annotated[PersonQuery, Query()], session: Reading, caller: Current
) -> Page[ListedPerson]:
    """People, the first to come first."""
    wanted = select(Admin)
    if query.role is not None:
        wanted = wanted.where(Admin.role == query.role)
    if query.is_active is not None:
        wanted = wanted.where(Admin.is_active == query.is_active)
    rows, cursor = page_of(session, wanted, query, by=[Admin.id])
    logins = _last_logins(session, rows)
    return Page(
        items=[
            fields.shown(ListedPerson, person, last_login_at=logins.get(person.id))
            for person in _shown(session, caller, rows)
        ],
        next_cursor=cursor,
    )


@router.post("", status_code=status.HTTP_201_CREATED)
@allow_writing
def create_admin(body: NewPersonBody, session: Writing, caller: Current) -> Person:
    """Add a person. Tell them the password; they change it with POST /auth/password."""
    row = Admin(
        id=new_id(),
        email=body.email,
        role=body.role,
        is_active=body.is_active,
        password_hash=hash_password(body.password.get_secret_value()),
        created_by=caller.admin_id,
        updated_by=caller.admin_id,
    )
    session.add(row)
    session.flush()
    return _shown(session, caller, [row])[0]


@router.get("/{admin_id}")
@allow_reading
@tagged
def get_admin(admin_id: UUID, session: Reading, caller: Current) -> Person:
    """One person."""
    return _shown(session, caller, [_found(session, admin_id)])[0]


@router.patch("/{admin_id}", openapi_extra=fields.patch_of(PersonBody))
@allow_writing
def change_admin(admin_id: UUID, changes: Changes, session: Writing, caller: Current) -> Person:
    """Change a person's address, role or is_active, which holds from the next request on.

    The last active super admin stays one: 409.
    """
    row = _found(session, admin_id)
    body = fields.merged(fields.stored(PersonBody, row), changes)
    if body.role != "super_admin" or not body.is_active:
        _keep_one(session, row, "is_active" if not body.is_active else "role")
    if row.is_active and not body.is_active:
        _end_sessions(session, row)
    for name in PersonBody.model_fields:
        setattr(row, name, getattr(body, name))
    row.updated_by = caller.admin_id
    session.flush()
    return _shown(session, caller, [row])[0]


@router.delete(
    "/{admin_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses={
        status.HTTP_200_OK: {"model": Person, "description": "The person has a history: deactivated only."},
        status.HTTP_204_NO_CONTENT: {"description": "Removed: they never did anything."},
    },
)
@allow_writing
def delete_admin(admin_id: UUID, session: Writing, caller: Current) -> Response:
    """Remove a person. One who has done anything, or owns tokens, is deactivated instead, and shown.

    The last active super admin stays: 409.
    """
    row = _found(session, admin_id)
    _keep_one(session, row, None)
    if not session.scalar(_has_a_history(row)):
        session.delete(row)
        return Response(status_code=status.HTTP_204_NO_CONTENT)
    _end_sessions(session, row)
    row.is_active = False
    row.updated_by = caller.admin_id
    session.flush()
    left = _shown(session, caller, [row])[0]
    return Response(left.model_dump_json(), status.HTTP_200_OK, media_type="application/json")


def _found(session: Session, admin_id: UUID) -> Admin:
    row = session.get(Admin, admin_id)
    if row is None:
        raise NotFound(f"There is no admin {admin_id}.")
    return row


def _keep_one(session: Session, row: Admin, field: str | None) -> None:
    """Writers queue at the configuration's version, so of two that each remove one of two, one is refused."""
    if row.role != "super_admin" or not row.is_active:
        return
    others = select(func.count()).where(Admin.role == "super_admin", Admin.is_active, Admin.id != row.id)
    if not session.scalar(others):
        raise Conflict("This is the last active super admin. Make another one first.", field=field)


def _end_sessions(session: Session, row: Admin) -> None:
    session.execute(
        update(AdminSession)
        .where(AdminSession.admin_id == row.id, AdminSession.revoked_at.is_(None))
        .values(revoked_at=func.now(), revoked_because="deactivated")
        .execution_options(synchronize_session=False)
    )


def _has_a_history(row: Admin) -> Select[bool]:
    by_them = select(AuditEntry.id).where(AuditEntry.admin_id == row.id)
    minted = select(AuditEntry.id).where(
        AuditEntry.noun == "admins", AuditEntry.noun_id == str(row.id), AuditEntry.action == "token_minted"
    )
    owned = select(AppToken.id).where(AppToken.owner_admin_id == row.id)
    return select(or_(by_them.exists(), minted.exists(), owned.exists()))


def _shown(session: Session, caller: Principal, rows: Sequence[Admin]) -> list[Person]:
    known = _with_second_factor(session, rows)
    return [
        fields.shown(
            Person,
            row,
            has_second_factor=known[row.id]
            if caller.actor is Actor.SUPER_ADMIN or row.id == caller.admin_id
            else None,
        )
        for row in rows
    ]


def _with_second_factor(session: Session, rows: Sequence[Admin]) -> Mapping[UUID, bool]:
    ids = [row.id for row in rows]
    enrolled = set(
        session.scalars(
            select(AdminSecondFactor.admin_id).where(
                AdminSecondFactor.admin_id.in_(ids), AdminSecondFactor.confirmed_at.is_not(None)
            )
        )
    )
    return {each: each in enrolled for each in ids}


def _last_logins(session: Session, rows: Sequence[Admin]) -> Mapping[UUID, datetime]:
    """By the sessions that the caller may see: ended ones are kept until their owner's next login."""
    found = session.execute(
        select(AdminSession.admin_id, func.max(AdminSession.created_at).label("at"))
        .where(AdminSession.admin_id.in_([row.id for row in rows]))
        .group_by(AdminSession.admin_id)
    )
    return {row.admin_id: row.at for row in found}
