"""Tokens of applications."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Query, status
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload
from sqlalchemy.orm.attributes import set_committed_value

from admin_api import fields
from admin_api.pagination import Page, PageQuery, page_of
from admin_api.refusals import Invalid, NotFound
from admin_api.security import Current, GuardedRoute, Scope, allow_reading, allow_writing
from admin_api.sessions import Reading, Writing
from admin_api.token_names import LONGEST, checked_name
from admin_api.tokens import new_app_token
from store.ids import new_id
from store.tables import Admin, AppToken

router = APIRouter(prefix="/tokens", tags=["tokens"], route_class=GuardedRoute)

DEFAULT_SCOPES = (Scope.ENQUEUE, Scope.READ)
_LAST = datetime(3000, 1, 1, tzinfo=UTC)


def _distinct(scopes: list[Scope]) -> list[Scope]:
    if not scopes:
        raise ValueError("A token that may do nothing is of no use: give it a scope.")
    return list(dict.fromkeys(scopes))


class TokenBody(fields.Body):
    """A token to be."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "web shop", "scopes": ["jobs:enqueue"], "expires_at": "2030-01-01T00:00:00Z"}
            ]
        }
    )

    name: Annotated[str, AfterValidator(checked_name), Field(min_length=1, max_length=LONGEST + 100)]
    owner_admin_id: Annotated[
        UUID | None,
        Field(description="Whose access and personal keys its jobs have; null: the application's own."),
    ] = None
    scopes: Annotated[
        list[Scope], AfterValidator(_distinct), Field(min_length=1, max_length=2 * len(Scope))
    ] = Field(default_factory=lambda: list(DEFAULT_SCOPES))
    expires_at: Annotated[AwareDatetime | None, Field(lt=_LAST, description="null: it does not expire.")] = (
        None
    )


class Token(BaseModel):
    """A token as people see it. `is_active`: not revoked, not expired. `last_used_at`: to the minute."""

    id: UUID
    name: str
    owner_admin_id: UUID | None
    owner_email: str | None
    scopes: list[str]
    token_last4: str
    is_active: bool
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime
    created_by: UUID | None

    @classmethod
    def of(cls, row: AppToken, **members: object) -> Self:
        is_active = row.revoked_at is None and (row.expires_at is None or row.expires_at > datetime.now(UTC))
        return fields.shown(
            cls,
            row,
            is_active=is_active,
            last_used_at=None if row.use is None else row.use.last_used_at,
            owner_email=None if row.owner is None else row.owner.email,
            **members,
        )


class NewToken(Token):
    """A token that was made. `token` is shown this once."""

    token: str


class TokenQuery(PageQuery):
    owner_admin_id: UUID | None = None


@router.get("")
@allow_reading
def list_tokens(query: Annotated[TokenQuery, Query()], session: Reading) -> Page[Token]:
    """Tokens, the oldest first, those that have ended, too."""
    wanted = select(AppToken).options(joinedload(AppToken.use), joinedload(AppToken.owner))
    if query.owner_admin_id is not None:
        wanted = wanted.where(AppToken.owner_admin_id == query.owner_admin_id)
    rows, cursor = page_of(session, wanted, query, by=[AppToken.id])
    return Page(items=[Token.of(row) for row in rows], next_cursor=cursor)


@router.post("", status_code=status.HTTP_201_CREATED)
@allow_writing
def create_token(body: TokenBody, session: Writing, caller: Current) -> NewToken:
    """Make a token. The answer is the only place where it stands in clear."""
    if body.expires_at is not None and body.expires_at <= datetime.now(UTC):
        raise Invalid("This time has passed.", field="expires_at")
    owner = None if body.owner_admin_id is None else _owner(session, body.owner_admin_id)
    clear, row = made(body.name, body.owner_admin_id, body.scopes, body.expires_at, caller.admin_id)
    session.add(row)
    session.flush()
    set_committed_value(row, "use", None)
    set_committed_value(row, "owner", owner)
    return NewToken.of(row, token=clear)


@router.delete("/{token_id}", status_code=status.HTTP_204_NO_CONTENT)
@allow_writing
def revoke_token(token_id: UUID, session: Writing) -> None:
    """Revoke a token: it is refused from the next request on. Its jobs stay."""
    row = session.get(AppToken, token_id)
    if row is None:
        raise NotFound(f"There is no token {token_id}.", hint="GET /tokens lists them.")
    row.revoked_at = row.revoked_at or datetime.now(UTC)


def made(
    name: str,
    owner_admin_id: UUID | None,
    scopes: list[Scope],
    expires_at: datetime | None = None,
    created_by: UUID | None = None,
) -> tuple[str, AppToken]:
    """A new token in clear, and its row."""
    clear, digest, last4 = new_app_token()
    row = AppToken(
        id=new_id(),
        name=name,
        owner_admin_id=owner_admin_id,
        scopes=[str(scope) for scope in scopes],
        token_hash=digest,
        token_last4=last4,
        expires_at=expires_at,
        created_by=created_by,
    )
    return clear, row


def _owner(session: Session, admin_id: UUID) -> Admin:
    owner = session.get(Admin, admin_id)
    if owner is None or not owner.is_active:
        raise Invalid(
            f"There is no active admin {admin_id}.", field="owner_admin_id", hint="GET /admins lists them."
        )
    return owner
