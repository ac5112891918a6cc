"""What an error answer says, whatever its shape, and the error class that follows from its status.

Error bodies come as an object under `error`, under `detail` or bare, as a list of one, as plain text, or as a
proxy's HTML page. Nothing here may raise on any bytes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from routing.errors import (
    AuthFailed,
    BadRequest,
    NotFound,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    ServerError,
    TimedOut,
    TooLarge,
    UnsupportedParameter,
)
from routing.providers.parameters import DROPPABLE
from routing.providers.wire import HttpResponse

_LONGEST = 2_000  # characters of a message
_REQUEST_IDS = ("x-request-id", "request-id", "apim-request-id", "x-amzn-requestid")
# Providers mask keys in their own way when they quote one back; even the ends of it need not be stored.
_QUOTED_KEY = re.compile(r"\b(?:sk|pk|rk|gsk|xai)[-_][A-Za-z0-9_\-*.…]{6,}|\bAIza[\w\-*]{10,}")
_REFUSAL = re.compile(
    r"unsupported|not supported|does not support|deprecated|extra inputs are not permitted|extra_forbidden"
    r"|unknown parameter|unknown name|unrecognized request argument|only the default|unavailable now",
    re.IGNORECASE,
)
# Where a wanted schema stands in the protocols: whatever is wrong with it, answers are checked here anyway.
_SCHEMA = re.compile(
    r"schema.*(response_?format|output_config|text\.format)|output_config\.format\.schema"
    r"|text\.format\.schema|response_?json_?schema|response_format.*schema",
    re.IGNORECASE | re.DOTALL,
)
_NAME = re.compile(r"[a-z][a-z_]+")

_BY_STATUS: Mapping[int, type[ProviderError]] = {
    401: AuthFailed,
    402: QuotaExhausted,
    403: AuthFailed,
    404: NotFound,
    408: TimedOut,
    410: NotFound,
    413: TooLarge,
    425: Overloaded,
    429: RateLimited,
    498: Overloaded,  # Groq: no capacity left in the flex tier
    499: TimedOut,
    503: Overloaded,
    529: Overloaded,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One error answer, read. `code` and `kind` are its machine words, "" where absent."""

    status: int
    message: str
    code: str = ""
    kind: str = ""
    param: str = ""
    details: Mapping[str, Any] | None = None
    retry_after: float | None = None
    request_id: str | None = None
    should_retry: bool | None = None

    @property
    def words(self) -> frozenset[str]:
        return frozenset({self.code, self.kind})


def read(response: HttpResponse, source: Any = None) -> Problem:
    """The problem in `response`; `source` is its error member where the caller has found that already."""
    body = _parsed(response.body) if source is None else source
    facts = _facts(body)
    text = _message(body, facts) or _plain(response.body)
    code = facts.get("code")
    status = response.status
    if status < 400 and isinstance(code, int) and 400 <= code < 600:
        status = code
    words = [_word(facts.get(name)) for name in ("code", "type", "param")]
    return Problem(
        status=status,
        message=brief(text or "no message"),
        code=words[0],
        kind=words[1],
        param=words[2].rsplit(".", 1)[-1],
        details=facts,
        retry_after=retry_after(response.headers),
        request_id=request_id(response.headers) or _word(_bare(body).get("request_id")) or None,
        should_retry={"true": True, "false": False}.get(response.headers.get("x-should-retry", "")),
    )


def by_status(status: int) -> type[ProviderError]:
    """The class a status stands for where nothing more is known."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return BadRequest if 400 <= status < 500 else ServerError


def error(kind: type[ProviderError], problem: Problem) -> ProviderError:
    """`problem` as an error of class `kind`."""
    label = f" ({problem.code or problem.kind})" if problem.words != {""} else ""
    return kind(
        brief(f"HTTP {problem.status}{label}: {problem.message}"),
        status=problem.status,
        retry_after=problem.retry_after,
        request_id=problem.request_id,
        should_retry=problem.should_retry,
    )


def unsupported(problem: Problem) -> UnsupportedParameter | None:
    """The one optional parameter that `problem` refuses, if that is what it says."""
    if problem.status not in (400, 422):
        return None
    refused = problem.code in ("unsupported_parameter", "unsupported_value", "extra_forbidden")
    if _SCHEMA.search(f"{problem.param} {problem.message}"):
        parameter: str | None = "response_format"
    elif refused or _REFUSAL.search(problem.message):
        named = [problem.param, *_NAME.findall(problem.message)]
        parameter = next((name for name in named if name in DROPPABLE), None)
    else:
        return None
    if parameter is None:
        return None
    return UnsupportedParameter(
        brief(f"HTTP {problem.status} ({problem.code or 'unsupported'}): {problem.message}"),
        parameter=parameter,
        replacement="max_completion_tokens" if parameter == "max_tokens" else None,
        status=problem.status,
        request_id=problem.request_id,
    )


_LONGEST_WAIT = 86_400.0  # seconds


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait: `retry-after-ms`, else `retry-after` as seconds or as an HTTP date.

    None where the provider did not say, or asks for more than a day: no provider means that.
    """
    milliseconds = seconds(headers.get("retry-after-ms"))
    value = headers.get("retry-after")
    if milliseconds is not None:
        wait: float | None = milliseconds / 1000
    else:
        stated = seconds(value)
        wait = _until(value, headers.get("date")) if stated is None else stated
    return None if wait is None or wait > _LONGEST_WAIT else wait


def request_id(headers: Mapping[str, str]) -> str | None:
    """The provider's id of the call."""
    return next((headers[name][:200] for name in _REQUEST_IDS if headers.get(name)), None)


def brief(text: str) -> str:
    """`text` fit to be stored: no keys, printable, at most 2,000 characters."""
    clean = _QUOTED_KEY.sub("[key]", text[: 2 * _LONGEST])
    return "".join(char if char.isprintable() else " " for char in clean)[:_LONGEST].strip()


def unreadable(response: HttpResponse, why: str) -> ServerError:
    """A 2xx answer that is none."""
    return ServerError(
        brief(f"HTTP {response.status}, but {why}"),
        status=response.status,
        request_id=request_id(response.headers),
    )


def _parsed(body: bytes) -> Any:
    try:
        value = json.loads(body.decode("utf-8-sig", "replace").strip())
    except (ValueError, RecursionError):
        return None
    return value[0] if isinstance(value, list) and value else value


def _bare(body: Any) -> Mapping[str, Any]:
    return body if isinstance(body, Mapping) else {}


def _facts(body: Any) -> Mapping[str, Any]:
    """The object that holds message, code and type."""
    whole = _bare(body)
    for name in ("error", "detail"):
        value = whole.get(name)
        if isinstance(value, Mapping):
            return value
        if isinstance(value, list) and value and isinstance(value[0], Mapping):  # a validation report
            first = value[0]
            place = first.get("loc")
            field = place[-1] if isinstance(place, list) and place else ""
            return {"code": first.get("type"), "param": field, "message": f"{field}: {first.get('msg')}"}
    return whole


def _message(body: Any, facts: Mapping[str, Any]) -> str:
    candidates = (facts.get("message"), facts.get("msg"), facts.get("error"), facts.get("detail"), body)
    return next((value for value in candidates if isinstance(value, str) and value.strip()), "")


def _plain(body: bytes) -> str:
    text = body[: 4 * _LONGEST].decode("utf-8", "replace").strip()
    if not text.startswith("<"):
        return text
    title = re.search(r"<title[^>]*>([^<]{1,200})", text, re.IGNORECASE)
    return f"an HTML page instead of an API answer: {title.group(1).strip() if title else 'no title'}"


def _word(value: Any) -> str:
    return str(value)[:200] if isinstance(value, str | int) and not isinstance(value, bool) else ""


def seconds(value: str | None) -> float | None:
    """A number of seconds, never below 0, or None where the text is no finite number."""
    try:
        found = float(value or "")
    except ValueError:
        return None
    return max(0.0, found) if math.isfinite(found) else None


def _until(value: str | None, now: str | None) -> float | None:
    """Seconds from `now` (the answer's own date, lest clocks differ) to the HTTP date `value`."""
    then = _date(value)
    if then is None:
        return None
    return max(0.0, (then - (_date(now) or datetime.now(UTC))).total_seconds())


def _date(value: str | None) -> datetime | None:
    try:
        parsed = parsedate_to_datetime(value or "")
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
