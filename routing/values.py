"""The values that travel from a job to an answer. All frozen; none does I/O.

Request ── resolver ──▶ Plan (Routes in order) ── failover ──▶ Outcome (Reply | error, Attempts)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from store.vault import Sealed


class Capability(StrEnum):
    """What a feature needs and a model offers."""

    TEXT = "text"
    VISION = "vision"
    SPEECH = "speech"
    TRANSCRIPTION = "transcription"
    MODERATION = "moderation"
    EMBEDDING = "embedding"
    IMAGE = "image"


class PriceUnit(StrEnum):
    """What a model's prices count, by the thousand."""

    TOKENS = "tokens"
    CHARACTERS = "characters"
    SECONDS = "seconds"
    IMAGES = "images"


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"
    TOOL = "tool"
    OTHER = "other"


class AttemptOutcome(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    LOST = "lost"


# --- configuration, as a snapshot holds it ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Provider:
    """One row of `ai_providers`. `settings` holds what vendors deviate in; `sealed_key` is None where the
    reader may not see keys; `key_version` is 0 where no key was ever stored."""

    id: UUID
    slug: str
    protocol: str
    base_url: str
    api_version: str | None
    organization: str | None
    settings: Mapping[str, Any]
    sealed_key: Sealed | None
    key_version: int
    allow_shared_for_normal_admins: bool
    allow_private_network: bool
    timeout_seconds: float | None
    is_active: bool
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class PersonalKey:
    """An active row of `admin_provider_settings`: a person's own key for a provider.

    `sealed_key` is None where the reader may not see keys. `tokens_spent` are those of this calendar month
    (UTC) as far as they were counted, None where nobody counts them; `monthly_limit` None = no limit.
    """

    id: UUID
    admin_id: UUID
    provider_id: UUID
    sealed_key: Sealed | None
    key_version: int
    use_shared_api: bool
    monthly_limit: int | None
    tokens_spent: int | None = None

    @property
    def is_spent(self) -> bool:
        """Whether the month's tokens are used up."""
        return (
            self.monthly_limit is not None
            and self.tokens_spent is not None
            and self.tokens_spent >= self.monthly_limit
        )


@dataclass(frozen=True, slots=True)
class Model:
    """One row of `ai_models`. `model_id` is the vendor's name for it; `retires_at` the last day (UTC) on
    which it is called; `is_default` puts it before others where any model will do; `api_style` which of a
    protocol's ways to say the same it is spoken to in."""

    id: UUID
    provider_id: UUID
    model_id: str
    capabilities: frozenset[str]
    context_window: int | None
    max_output_tokens: int | None
    default_parameters: Mapping[str, Any]
    constraints: Mapping[str, Any]
    is_active: bool
    sort_order: int
    is_default: bool = False
    retires_at: date | None = None
    api_style: str = "chat"
    supports_streaming: bool = True

    def is_retired(self, now: datetime) -> bool:
        """Whether its last day is over."""
        return self.retires_at is not None and self.retires_at < now.astimezone(UTC).date()


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per 1,000 units from `valid_from` on. None = unknown, which is not the same as free."""

    valid_from: datetime
    unit: PriceUnit
    input_per_1k: Decimal | None
    output_per_1k: Decimal | None
    cached_input_per_1k: Decimal | None = None
    cache_write_per_1k: Decimal | None = None
    batch_input_per_1k: Decimal | None = None
    batch_output_per_1k: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """One version of a prompt: Jinja templates over the job's input. None = the capability's default."""

    id: UUID
    version: int
    system: str | None
    user: str | None


@dataclass(frozen=True, slots=True)
class Feature:
    """One row of `features`. `max_queued`: how many unfinished jobs it may have, None = any number.

    `output_schema`: the JSON Schema that its answers fit, None = any text will do.
    """

    id: UUID
    name: str
    capability: Capability
    lane: str
    input_schema: Mapping[str, Any]
    is_active: bool
    max_queued: int | None = None
    output_schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A model row that may serve a feature.

    `weight`: its share under the strategy `weighted`. Only while its conditions hold is it tried: `plan` is
    the caller's, and a budget that covers the job has burned `budget_burn_percent` of its limit.
    """

    model_id: UUID
    weight: float = 1.0
    plan: str | None = None
    budget_burn_percent: float | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which models serve a feature: its `targets` as they are listed, put in order by its `strategy`."""

    id: UUID
    feature_id: UUID
    strategy: str
    targets: tuple[Target, ...]
    prompt: Prompt | None
    parameters: Mapping[str, Any]
    max_retries: int
    retry_delay_seconds: float
    timeout_seconds: float | None
    deadline_seconds: float | None
    use_any_active_model: bool
    is_active: bool


@dataclass(frozen=True, slots=True)
class Budget:
    """What calls may cost in a period (UTC), or how many tokens they may take: input and output together.

    `scope` is global, provider, feature or user, `scope_id` whose: a provider's id, a feature's name, an end
    user; None with scope user: each user's own. A limit of None is none.
    """

    id: UUID
    scope: str
    scope_id: str | None
    period: str
    limit_usd: Decimal | None
    limit_tokens: int | None
    action: str

    def covers(self, *, feature: str, user_id: str | None, provider_id: UUID) -> bool:
        """Whether such a call counts into it."""
        whose = {"provider": str(provider_id), "feature": feature, "user": user_id}.get(self.scope)
        if self.scope_id is None:
            return self.scope == "global" or whose is not None
        return whose == self.scope_id


# --- one job ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a job runs. Neither an admin id nor a role: the application itself."""

    admin_id: UUID | None = None
    role: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What a job asks. `deadline` is a `time.monotonic()` instant, None = no deadline; `sticky` names whom a
    weighted choice sticks to."""

    feature: str
    input: Mapping[str, Any]
    caller: Caller = Caller()
    user_id: str | None = None
    plan: str | None = None
    deadline: float | None = None
    sticky: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """One way to serve a feature; `personal_key` None = by the provider's shared key."""

    provider: Provider
    model: Model
    price: Price | None
    personal_key: PersonalKey | None = None

    @property
    def key_version(self) -> int:
        """Which key, as records keep it: n = the provider's n-th, -n = the n-th of the caller's own."""
        return self.provider.key_version if self.personal_key is None else -self.personal_key.key_version


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A target that is no route now, and why: `error_class` and a sentence that names the fix."""

    model_id: UUID
    provider: str | None
    model: str | None
    error_class: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision: `routes` in the order in which they are tried; `budgets` cover at least one of them."""

    config_version: int
    feature: Feature
    assignment: Assignment
    routes: tuple[Route, ...]
    passed_over: tuple[PassedOver, ...] = ()
    budgets: tuple[Budget, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """One earlier message of a conversation: role `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Media:
    """A picture or a recording, and what it is, such as `image/png`."""

    body: bytes = field(repr=False)
    media_type: str


@dataclass(frozen=True, slots=True)
class Attachments:
    """What a job's input holds or points to besides its texts: pictures, a recording, a page's text."""

    images: tuple[Media, ...] = ()
    audio: Media | None = None
    page: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One provider call, ready to be encoded.

    `system` and `user` are rendered; for capabilities other than text `user` is what is spoken, judged,
    embedded (`texts` where there are several) or drawn. `images` are looked at with it, `audio` is what is
    transcribed. `parameters` are the model's defaults under the assignment's. `is_streamed`: the answer is
    asked for as it is written.
    """

    capability: Capability
    route: Route
    system: str | None
    user: str
    history: tuple[Turn, ...] = ()
    texts: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    voice: str | None = None
    end_user: str | None = None
    images: tuple[Media, ...] = ()
    audio: Media | None = None
    is_streamed: bool = False


# --- the answer ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call consumed, in one convention for all protocols: `input_tokens` include cached ones,
    `output_tokens` include reasoning. None = the provider did not say; `estimated` = we filled in.

    `batch_rate`: it was served at the price of a batch. `cost_usd`: what the provider says it took for it.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    characters: int | None = None
    seconds: float | None = None
    images: int | None = None
    estimated: bool = False
    raw: Mapping[str, Any] | None = None
    batch_rate: bool = False
    cost_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A provider's answer, normalised.

    `artifact`, a recording or a picture, goes to the artifact store, never into the database. Where a
    provider only says where it lies, `artifact_url` does, and it is still to be fetched. `data` is a JSON
    value: what the text says where it is one, or what there is to tell beside it.
    """

    usage: Usage
    text: str | None = None
    data: Any = None
    artifact: bytes | None = field(default=None, repr=False)
    artifact_url: str | None = None
    media_type: str | None = None
    flagged: bool | None = None
    embeddings: tuple[tuple[float, ...], ...] = ()
    finish_reason: FinishReason = FinishReason.STOP
    finish_reason_raw: str | None = None
    served_model: str | None = None
    response_id: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one route. `cost_usd` None = unknown. `status` None = no HTTP answer. `n` counts from 1
    within a run; a route passed over because its breaker was open is an attempt without a call."""

    n: int
    route: Route
    started_at: datetime
    finished_at: datetime
    latency_ms: int
    outcome: AttemptOutcome
    called: bool
    breaker: str
    error_class: str | None = None
    error_message: str | None = None
    status: int | None = None
    request_id: str | None = None
    served_model: str | None = None
    usage: Usage = Usage()
    cost_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: a `reply` and the `route` it came by, or an `error`.

    `error` is the one to tell the user: of several routes' errors the first retryable one, else the first.
    `retry_after` is the shortest wait, in seconds, that any route asked for; `is_wait`: some route only waits
    for its turn, so the job's going back is no retry.
    """

    attempts: tuple[Attempt, ...]
    reply: Reply | None = None
    route: Route | None = None
    error_class: str | None = None
    error_message: str | None = None
    retryable: bool = False
    retry_after: float | None = None
    is_wait: bool = False
