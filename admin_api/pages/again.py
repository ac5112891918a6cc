"""A form that was refused, on its way to being shown again."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from admin_api.errors import Problem
from admin_api.pages.route import SentForm


@dataclass(frozen=True, slots=True)
class Again:
    """What was typed into the form of `action`, and why it was refused."""

    action: str
    sent: SentForm
    problem: Problem


def again_of(request: Request) -> Again | None:
    """Why the page is shown again; None where it is shown for the first time."""
    return getattr(request.state, "again", None)
