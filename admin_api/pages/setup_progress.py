"""How far the first configuration is, read off what exists: nothing of the wizard itself is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlencode
from uuid import UUID

from sqlalchemy.orm import Session

from admin_api.assignments import AssignmentQuery, list_assignments
from admin_api.job_bodies import JobQuery
from admin_api.jobs import list_jobs
from admin_api.models import Model, ModelQuery, list_models
from admin_api.pagination import every
from admin_api.providers import Provider, ProviderQuery, list_providers
from admin_api.security import Principal
from admin_api.services import Services

PATH = "/setup"


class Step(StrEnum):
    """The steps in their order; each is a page."""

    PROVIDER = "provider"
    TEST = "test"
    MODEL = "model"
    ASSIGN = "assign"
    RUN = "run"


TITLES = {
    Step.PROVIDER: "Add a provider",
    Step.TEST: "Test it",
    Step.MODEL: "Add a model",
    Step.ASSIGN: "Assign features",
    Step.RUN: "Run a job",
}


@dataclass(frozen=True, slots=True)
class Journey:
    """What there is: a provider, its models, the features they serve, and whether any job succeeded.

    `was_tested`: the provider took a test just now. What has models counts as tested, too.
    """

    provider: Provider | None
    models: Sequence[Model]
    features: Sequence[str]
    has_answer: bool
    was_tested: bool = False

    def is_done(self, step: Step) -> bool:
        """Whether the step needs nothing more."""
        return {
            Step.PROVIDER: self.provider is not None,
            Step.TEST: self.was_tested or bool(self.models),
            Step.MODEL: bool(self.models),
            Step.ASSIGN: bool(self.features),
            Step.RUN: self.has_answer and bool(self.features),
        }[step]

    @property
    def next(self) -> Step | None:
        """The first step that is not done; None where all are."""
        return next((step for step in Step if not self.is_done(step)), None)

    def address(self, step: Step) -> str:
        """Where the step goes on for this provider."""
        needs_provider = step in (Step.TEST, Step.MODEL, Step.ASSIGN) and self.provider is not None
        return address(step, provider=self.provider.id if needs_provider and self.provider else None)


@dataclass(frozen=True, slots=True)
class Mark:
    """A step in the progress line; `href`: "" where it cannot be gone to yet."""

    title: str
    href: str
    is_done: bool
    is_current: bool


def address(step: Step, **members: object) -> str:
    """The step's page, about these."""
    query = urlencode({name: str(value) for name, value in members.items() if value})
    return f"{PATH}/{step}" + (f"?{query}" if query else "")


def marks(journey: Journey, current: Step | None) -> list[Mark]:
    """The progress line. What is done can be gone back to."""
    reached = list(Step)[: list(Step).index(journey.next) + 1] if journey.next else list(Step)
    return [
        Mark(
            title=TITLES[step],
            href=journey.address(step) if step in reached and step is not current else "",
            is_done=journey.is_done(step),
            is_current=step is current,
        )
        for step in Step
    ]


def journey(
    session: Session,
    caller: Principal,
    using: Services,
    *,
    provider_id: UUID | None = None,
    was_tested: bool = False,
) -> Journey:
    """The journey of one provider, by default of the one that has come furthest."""
    providers = list_providers(ProviderQuery(limit=200), session).items
    served = _served(session)
    succeeded = list_jobs(JobQuery(state="succeeded", limit=1), caller, using).items
    journeys = [
        _journey(provider, served, session, has_answer=bool(succeeded), was_tested=was_tested)
        for provider in providers
        if provider_id in (None, provider.id)
    ]
    nowhere = Journey(None, [], [], has_answer=bool(succeeded))
    return max(journeys, key=_distance, default=nowhere)


def _journey(
    provider: Provider,
    served: Sequence[tuple[str, UUID]],
    session: Session,
    *,
    has_answer: bool,
    was_tested: bool,
) -> Journey:
    models = list_models(ModelQuery(provider=provider.slug, limit=200), session).items
    own = {model.id for model in models}
    features = [feature for feature, model_id in served if model_id in own]
    return Journey(provider, models, features, has_answer, was_tested)


def _served(session: Session) -> list[tuple[str, UUID]]:
    """Each assigned feature with its primary model's id."""
    assignments = every(
        lambda cursor: list_assignments(AssignmentQuery(is_active=True, limit=200, cursor=cursor), session)
    )
    return [(each.feature_name, each.model_id) for each in assignments if each.model_id is not None]


def _distance(journey: Journey) -> tuple[int, UUID | None]:
    """How far it went; of several, the provider that came last."""
    return sum(journey.is_done(step) for step in Step), journey.provider.id if journey.provider else None
