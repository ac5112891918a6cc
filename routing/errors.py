"""Everything that can go wrong on the way to an answer.

    RoutingError
    ├── ProviderError                  a call was made and failed
    │   ├── BadRequest                 bad_request
    │   │   └── UnsupportedParameter   bad_request, one optional parameter may be dropped
    │   ├── TooLarge                   too_large
    │   ├── ContentPolicy              content_policy
    │   ├── AuthFailed                 auth
    │   ├── NotFound                   not_found
    │   ├── QuotaExhausted             quota
    │   ├── RateLimited                rate_limited
    │   ├── Overloaded                 overloaded      trips the breaker
    │   ├── ServerError                server_error    trips the breaker
    │   │   └── EmptyReply             server_error, but the provider is well: the model said nothing
    │   ├── OutputRejected             output_schema   the answer does not fit the feature's output_schema
    │   ├── TimedOut                   timeout         trips the breaker
    │   │   └── PoolTimedOut           timeout, but of our own making
    │   ├── ConnectionFailed           connection      trips the breaker
    │   └── SubmitUnknown              submit_unknown  a batch was sent: nobody knows whether it exists
    ├── CircuitOpen                    overloaded      no call was made: the breaker is open
    ├── RateWait                       rate_wait       no call was made: it is not its turn yet
    ├── KeySpent                       quota           no call was made: the key's quota was used up just now
    ├── KeyRefused                     auth            no call was made: the key was refused just now
    ├── ModelMissing                   not_found       no call was made: the provider did not know it just now
    ├── ConfigurationError             configuration   a row must be mended
    ├── NoAccess                       no_access       the caller may not use this provider
    ├── LimitSpent                     budget          the caller's own key has used up its month
    ├── BudgetSpent                    budget          a budget has no room for the call
    │   └── BudgetDeferred             budget          the job waits for the budget's next period
    ├── UnknownFeature                 input           no feature has this name
    ├── InputRejected                  input           the job's input does not fit its feature
    ├── InputUnavailable               input           what it points to cannot be fetched now
    ├── DeadlinePassed                 deadline        the job ran out of time
    └── LeaseLost                      cancelled       another worker owns the job now: stop

Errors carry facts; the failover loop, the breaker and the retry policy ask them and know no statuses.
The classes and their consequences are those of the providers' own clients (408, 409, 429 and 5xx are
retried there; authentication and validation errors are not).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from routing.values import Usage


class RoutingError(Exception):
    """Base of the tree.

    Class attributes:
        error_class: the word stored with a job or an attempt.
        trips_breaker: counts against the provider's circuit breaker.
        retries_route: may be tried again on the same route within this run.
        tries_backup: the next route may succeed where this one failed.
        retryable: the job may succeed later, so it goes back to the queue when every route is spent.
        is_wait: nothing failed, its turn is later: it goes back for `retry_after` seconds, uncounted.

    `hint` tells programs what to send instead; it is not part of what people read. `retry_after`: seconds
    until it may succeed, None where nobody knows.
    """

    error_class: ClassVar[str]
    trips_breaker: ClassVar[bool] = False
    retries_route: ClassVar[bool] = False
    tries_backup: ClassVar[bool] = False
    retryable: ClassVar[bool] = False
    is_wait: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after = retry_after


class ProviderError(RoutingError):
    """A provider call failed.

    Args:
        message: at most 2,000 characters, free of keys.
        status: HTTP status of the answer; None where there was none.
        retry_after: seconds the provider asked us to wait; None where it did not say.
        request_id: the provider's id of the call, for its support desk.
        should_retry: the provider's own verdict (`x-should-retry`), which overrules `retries_route`.
        sent: False where the request certainly never reached the provider, so it cannot have been billed.
        usage: what the failed call consumed, where the provider said so.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
        should_retry: bool | None = None,
        sent: bool = True,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.status = status
        self.request_id = request_id
        self.should_retry = should_retry
        self.sent = sent
        self.usage = usage


class BadRequest(ProviderError):
    error_class = "bad_request"


class UnsupportedParameter(BadRequest):
    """The model refuses one optional parameter; the same call without it may succeed.

    `parameter` is the name as we sent it; `replacement` the name the provider wants instead, if it said so.
    """

    tries_backup = True

    def __init__(
        self,
        message: str,
        *,
        parameter: str,
        replacement: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, status=status, request_id=request_id)
        self.parameter = parameter
        self.replacement = replacement


class TooLarge(ProviderError):
    """The input exceeds the model's window; a backup with a larger one may take it."""

    error_class = "too_large"
    tries_backup = True


class ContentPolicy(ProviderError):
    error_class = "content_policy"


class AuthFailed(ProviderError):
    error_class = "auth"
    tries_backup = True


class NotFound(ProviderError):
    error_class = "not_found"
    tries_backup = True


class QuotaExhausted(ProviderError):
    error_class = "quota"
    tries_backup = True


class RateLimited(ProviderError):
    error_class = "rate_limited"
    retries_route = True
    tries_backup = True
    retryable = True


class Overloaded(ProviderError):
    error_class = "overloaded"
    trips_breaker = True
    retries_route = True
    tries_backup = True
    retryable = True


class ServerError(ProviderError):
    error_class = "server_error"
    trips_breaker = True
    retries_route = True
    tries_backup = True
    retryable = True


class EmptyReply(ServerError):
    """A proper answer without any content. It may be this one prompt: no reason to close the provider."""

    trips_breaker = False


class OutputRejected(ProviderError):
    """The answer does not fit the feature's output_schema.

    `text` is the answer, `problem` what is wrong with it, `was_cut`: it ended at the token limit.
    """

    error_class = "output_schema"
    tries_backup = True

    def __init__(
        self, problem: str, *, text: str, was_cut: bool, usage: Usage, request_id: str | None
    ) -> None:
        cut = " The answer was cut off at its token limit: raise max_tokens." if was_cut else ""
        super().__init__(
            f"The answer does not fit the feature's output_schema: {problem}{cut}",
            status=200,
            usage=usage,
            request_id=request_id,
        )
        self.text = text
        self.problem = problem
        self.was_cut = was_cut


class TimedOut(ProviderError):
    error_class = "timeout"
    trips_breaker = True
    retries_route = True
    tries_backup = True
    retryable = True


class PoolTimedOut(TimedOut):
    """No connection was free in this process: nothing the provider did."""

    trips_breaker = False


class ConnectionFailed(ProviderError):
    error_class = "connection"
    trips_breaker = True
    retries_route = True
    tries_backup = True
    retryable = True


class SubmitUnknown(ProviderError):
    """No answer tells whether a batch was created. It must be looked for before it is sent again."""

    error_class = "submit_unknown"
    retryable = True


class CircuitOpen(RoutingError):
    """The provider is known to be down; no call was made and none was counted. It is tried again in
    `retry_after` seconds, where that is known: a job need not come back before."""

    error_class = "overloaded"
    tries_backup = True
    retryable = True


class RateWait(RoutingError):
    """It is not this call's turn yet: `retry_after` seconds from now it may be. No call was made."""

    error_class = "rate_wait"
    tries_backup = True
    retryable = True
    is_wait = True


class KeySpent(RoutingError):
    error_class = "quota"
    tries_backup = True


class KeyRefused(RoutingError):
    error_class = "auth"
    tries_backup = True


class ModelMissing(RoutingError):
    error_class = "not_found"
    tries_backup = True


class ConfigurationError(RoutingError):
    """What is configured cannot work. The message names the row and the fix."""

    error_class = "configuration"
    tries_backup = True


class NoAccess(RoutingError):
    error_class = "no_access"
    tries_backup = True


class LimitSpent(RoutingError):
    """A limit that the caller set is used up. Not `quota`, which is a provider's verdict on a call."""

    error_class = "budget"
    tries_backup = True


class BudgetSpent(RoutingError):
    """A budget has no room for the call; none was made."""

    error_class = "budget"
    tries_backup = True


class BudgetDeferred(BudgetSpent):
    """The job goes back until the budget's next period, in `retry_after` seconds."""

    retryable = True
    is_wait = True


class UnknownFeature(RoutingError):
    error_class = "input"


class InputRejected(RoutingError):
    """The job's input does not fit the feature's schema. `field` is its path, such as `input/sign`."""

    error_class = "input"

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


class InputUnavailable(RoutingError):
    """What the job's input points to cannot be fetched now; later it may."""

    error_class = "input"
    retryable = True


class DeadlinePassed(RoutingError):
    error_class = "deadline"


class LeaseLost(RoutingError):
    """The job was rescued by another worker, or cancelled: whatever follows would be work for nothing."""

    error_class = "cancelled"
