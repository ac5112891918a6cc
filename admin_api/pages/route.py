"""Pages: who asks, and whether they may, by the same rules as the API's.

    @router.get("/providers/new")
    @allow_writing
    def new_provider(request: Request) -> Response:
        return page(request, "provider_form.html", form=PROVIDER.view(request))

    @router.post("/providers/new")
    @allow_writing
    def create(sent: Sent, session: Writing, caller: Current, using: Using) -> Response:
        made = create_provider(PROVIDER.body(sent), session, caller, using)
        return done(f"/providers/{made.id}", "Provider saved.")

`request.state.principal` is whom the session's cookie names, so that `Current`, `Using`, `Reading` and
`Writing` mean here what they mean in the API. A form that is refused, for whatever reason the API has, shows
its page again with what was typed (`layer.py`): page functions need not catch anything.

Every POST comes from our own pages (Origin, Sec-Fetch-Site) and carries the token of its session, as the
field `csrf` or as `X-CSRF-Token`. Logging in has no session yet, and rests on the first of the two.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Annotated, Any, TypeVar
from urllib.parse import quote, urlsplit

from fastapi import Depends, Request, Response, status
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute

from admin_api import browser, etags
from admin_api.bodies import FormRequest
from admin_api.browser import Visitor
from admin_api.pages import cookies, flashes
from admin_api.pages.cookies import Cookie
from admin_api.pages.flashes import Flash, Kind
from admin_api.refusals import Forbidden, SecondFactorMissing, Unauthenticated
from admin_api.security import Principal, Rule, rule_of
from admin_api.services import services

ENROLLING = "/account"
"""Where a second factor is enrolled."""

LIVE = "X-Live"
"""The header of a page that asks by itself for news: no sign of life, and no reader of messages."""

_Read = Callable[..., Any]
_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])
_PAGES: dict[str, PageRoute] = {}
_CHANGED: dict[_Read, _Read] = {}
_SHOWN_AT: dict[_Read, str] = {}


class SentForm:
    """The fields of a form as they were typed."""

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self._fields: dict[str, list[str]] = {}
        for name, value in fields:
            self._fields.setdefault(name, []).append(value)

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def get(self, name: str, default: str = "") -> str:
        """The field's value, the first one where it was sent often."""
        return self._fields.get(name, [default])[0]

    def all(self, name: str) -> list[str]:
        """All values of a field: the boxes that were ticked."""
        return list(self._fields.get(name, ()))


def sent(request: Request) -> SentForm:
    """The form that was sent with the request."""
    found: SentForm = request.state.sent
    return found


Sent = Annotated[SentForm, Depends(sent)]


class Done(RedirectResponse):
    """What was asked for is done: show another page, which tells."""

    def __init__(self, path: str, flash: Flash | None) -> None:
        super().__init__(path, status.HTTP_303_SEE_OTHER)
        self.flash = flash


def done(path: str, text: str | None = None, *, kind: Kind = "good", undo: str = "") -> Done:
    """Go on to `path`, whose page tells `text` once; a button beside it posts to `undo`, where given."""
    return Done(path, None if text is None else Flash(kind, text, undo))


def changes(reader: _Read) -> Callable[[_Endpoint], _Endpoint]:
    """Declare that a POST changes what `reader`, a tagged GET of the API, shows; it stands below `@allow`.

    The form's hidden `etag` is then compared under the writers' lock, as If-Match is.
    """

    def declare(endpoint: _Endpoint) -> _Endpoint:
        _CHANGED[endpoint] = reader
        return endpoint

    return declare


def shown_at(path: str) -> Callable[[_Endpoint], _Endpoint]:
    """Declare on which page a POST's form stands, where that is not the POST's own address.

    `path` may hold the keys of the POST's, in braces. A refused form is shown again there.
    """

    def declare(endpoint: _Endpoint) -> _Endpoint:
        _SHOWN_AT[endpoint] = path
        return endpoint

    return declare


class PageRoute(APIRoute):
    """A route of the web UI. Raises UnguardedRoute where the endpoint has no `@allow`."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self.rule = rule_of(endpoint)
        super().__init__(path, endpoint, **{**options, "include_in_schema": False})
        if "GET" in (self.methods or ()):
            _PAGES[path] = self

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler behind the guard."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            request.state.is_page = True
            form = FormRequest(request.scope, request.receive)
            try:
                visitor = await run_in_threadpool(_visitor, request, self.rule)
            except Unauthenticated:
                return _to_login(request)
            if visitor is not None:
                request.state.visitor, request.state.principal = visitor, visitor.principal
                try:
                    self.rule.check(visitor.principal)
                except SecondFactorMissing as missing:
                    return _answered(request, done(ENROLLING, missing.message, kind="warn"))
            form.check_address()
            if request.method == "POST":
                await self._receive(form, visitor)
            return _answered(request, await handle(form))

        return guarded

    async def _receive(self, request: FormRequest, visitor: Visitor | None) -> None:
        _check_origin(request)
        request.state.sent = SentForm(await request.fields())
        if visitor is not None:
            _check_token(request, visitor)
        reader, tag = _CHANGED.get(self.endpoint), request.state.sent.get("etag")
        if reader is not None and tag:
            etags.expect_tag(request, reader, tag)
        again = _SHOWN_AT.get(self.endpoint) or (self.path if self.path in _PAGES else None)
        request.state.shown_at = again and again.format(**request.path_params)


def visitor(request: Request) -> Visitor | None:
    """Who asks; None on public pages for nobody, and where an error came before it was known."""
    return getattr(request.state, "visitor", None)


def may_see(path: str, caller: Principal) -> bool:
    """Whether there is a page at this address (a route's path, with its braces) that the caller may see."""
    return path in _PAGES and _PAGES[path].rule.permits(caller)


def pages() -> Mapping[str, Rule]:
    """Who may see each page, by its route's path."""
    return {path: route.rule for path, route in _PAGES.items()}


def safe_path(path: str, *, otherwise: str) -> str:
    """`path` where it leads to a page of ours: an address below this origin's root; else `otherwise`.

    Browsers read a backslash as a slash and drop tabs and line feeds, so neither is taken.
    """
    is_plain = path.isascii() and path.isprintable() and "\\" not in path
    if not is_plain or not path.startswith("/") or path.startswith("//"):
        return otherwise
    parts = urlsplit(path)
    return otherwise if parts.scheme or parts.netloc else path


def here(request: Request) -> str:
    """The request's address below the root, with its query."""
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def _visitor(request: Request, rule: Rule) -> Visitor | None:
    cookie = cookies.read(request, Cookie.SESSION) or ""
    try:
        return browser.resume(
            services(request), cookie, request.headers, prolongs=LIVE not in request.headers
        )
    except Unauthenticated:
        if rule.is_public:
            return None
        raise


def _to_login(request: Request) -> Response:
    wanted = here(request) if request.method == "GET" else request.headers.get("referer", "")
    path = safe_path(wanted, otherwise="/")
    return done("/login" if path == "/" else f"/login?next={quote(path, safe='')}")


def _answered(request: Request, response: Response) -> Response:
    if isinstance(response, Done) and response.flash is not None:
        flashes.put(response, request, response.flash)
    response.headers.setdefault("Cache-Control", "no-store")
    # Without a Referer browsers send forms with `Origin: null`.
    response.headers.setdefault("Referrer-Policy", "same-origin")
    return response


def _check_origin(request: Request) -> None:
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    is_ours = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    if site not in ("same-origin", "none") or not is_ours:
        raise Forbidden("This was sent from another site. Open the page here, and send it again.")


def _check_token(request: Request, visitor: Visitor) -> None:
    given = request.headers.get("x-csrf-token") or request.state.sent.get("csrf")
    if not hmac.compare_digest(given.encode(), visitor.csrf.encode()):
        raise Forbidden("This form is not of your session: it is from before you logged in. Load it again.")
