"""What a job's input holds or points to besides its texts: pictures, recordings and web pages.

Fetched once per run, before any provider is called, and never with a provider's key. Whoever may enqueue a
job may name an address, so the guard of `address` applies: public addresses alone (unless the installation
allows others), no redirects, a deadline and a size. What arrives counts as what its first bytes say it is.

    image_url, image_base64     a picture, for features of the capabilities text and vision
    audio_url, audio_base64     a recording, for transcription
    a property with `"x-fetch": "page"` in the input schema      a web page, read as `text`
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from routing.address import ForbiddenAddressError
from routing.errors import (
    ConnectionFailed,
    InputRejected,
    InputUnavailable,
    ProviderError,
    RoutingError,
    ServerError,
    TimedOut,
)
from routing.media import AUDIO_INPUTS, IMAGE_INPUTS, audio_type, image_type
from routing.pages import text_of
from routing.providers.wire import HttpRequest, HttpResponse
from routing.transport import Peer, Transport
from routing.values import Attachments, Capability, Feature, Media, Provider, Reply

_IMAGE_BYTES = 10 * 1024 * 1024
_AUDIO_BYTES = 25 * 1024 * 1024  # what the vendors take
_PAGE_BYTES = 5 * 1024 * 1024
_PAGE_CHARACTERS = 100_000
_SECONDS = 20.0  # for each address
_PASSING = frozenset({408, 425, 429})  # statuses that may be others later, as 5xx are
_PAGE_TYPES = frozenset({"text/html", "application/xhtml+xml", "text/plain", ""})
_NOTHING = Attachments()


def gather(
    feature: Feature, values: Mapping[str, Any], transport: Transport, *, seconds: float | None
) -> Attachments:
    """What goes along with a job of this input. `seconds` are those until its deadline, None = it has none.

    Raises:
        InputRejected: what is needed is missing, or is not what it should be.
        InputUnavailable: an address did not give it now.
    """
    fetcher = _Fetcher(transport, _SECONDS if seconds is None else max(0.001, min(_SECONDS, seconds)))
    match feature.capability:
        case Capability.TRANSCRIPTION:
            return Attachments(audio=_needed(fetcher.audio(values), AUDIO_INPUTS))
        case Capability.VISION:
            return Attachments(images=(_needed(fetcher.image(values), IMAGE_INPUTS),))
        case Capability.TEXT:
            image, page = fetcher.image(values), fetcher.page(feature, values)
            if image is None and page is None:
                return _NOTHING
            return Attachments(images=(image,) if image else (), page=page)
        case _:
            return _NOTHING


def downloaded(reply: Reply, provider: Provider, transport: Transport, *, seconds: float) -> Reply:
    """`reply` with the picture that its `artifact_url` leads to.

    Raises TimedOut, ConnectionFailed or ServerError, with what the call consumed.
    """
    peer = Peer(
        f"The address that provider {provider.slug!r} gave for the picture",
        "It",
        provider.allow_private_network,
    )
    request = HttpRequest("GET", reply.artifact_url or "", {})
    kind: type[ProviderError] = ServerError
    try:
        response = transport.exchange(request, timeout=max(0.001, seconds), peer=peer)
    except RoutingError as error:
        kind = next((kind for kind in (TimedOut, ConnectionFailed) if isinstance(error, kind)), ServerError)
        problem = error.message
    else:
        media_type = image_type(response.body)
        if response.status < 400 and media_type is not None:
            return replace(reply, artifact=response.body, media_type=media_type, artifact_url=None)
        problem = f"{peer.name} answered {response.status}, without a picture."
    raise kind(problem, status=200, usage=reply.usage, request_id=reply.request_id)


class _Fetcher:
    def __init__(self, transport: Transport, seconds: float) -> None:
        self._transport = transport
        self._seconds = seconds

    def image(self, values: Mapping[str, Any]) -> Media | None:
        kinds = "PNG, JPEG, GIF or WebP picture"
        return self._media(values, IMAGE_INPUTS, image_type, kinds, _IMAGE_BYTES)

    def audio(self, values: Mapping[str, Any]) -> Media | None:
        kinds = "WAV, MP3, Ogg, FLAC, WebM or MP4 recording"
        return self._media(values, AUDIO_INPUTS, audio_type, kinds, _AUDIO_BYTES)

    def page(self, feature: Feature, values: Mapping[str, Any]) -> str | None:
        """The text of the page that the input names, where it brings none of its own."""
        properties = feature.input_schema.get("properties")
        if not isinstance(properties, Mapping) or values.get("text"):
            return None
        for name, schema in properties.items():
            if isinstance(schema, Mapping) and schema.get("x-fetch") == "page" and values.get(name):
                return self._page(str(values[name]), f"input/{name}")
        return None

    def _page(self, url: str, field: str) -> str:
        response = self._fetched(url, field, _PAGE_BYTES)
        content_type = response.headers.get("content-type", "")
        if content_type.partition(";")[0].strip().lower() not in _PAGE_TYPES:
            raise InputRejected(f"{field} leads to {content_type[:100]}, which is no web page.", field=field)
        text = text_of(response.body, content_type, most=_PAGE_CHARACTERS)
        if not text:
            raise InputRejected(f"{field} leads to a page without any text.", field=field)
        return text

    def _media(
        self,
        values: Mapping[str, Any],
        names: tuple[str, str],
        type_of: Callable[[bytes], str | None],
        kinds: str,
        most: int,
    ) -> Media | None:
        url, inline = (values.get(name) for name in names)
        field = f"input/{names[1] if inline else names[0]}"
        if inline:
            body = _decoded(str(inline), field, most)
        elif url:
            body = self._fetched(str(url), field, most).body
        else:
            return None
        media_type = type_of(body)
        if media_type is None:
            raise InputRejected(f"{field} is no {kinds}: its first bytes say otherwise.", field=field)
        return Media(body, media_type)

    def _fetched(self, url: str, field: str, most: int) -> HttpResponse:
        _check_url(url, field)
        peer = Peer(f"The address in {field}", field, self._transport.private_inputs, max_body=most)
        try:
            response = self._transport.exchange(HttpRequest("GET", url, {}), timeout=self._seconds, peer=peer)
        except ForbiddenAddressError as error:
            raise InputRejected(
                f"{field} leads to {error.host!r}, where the public internet does not go. An installation "
                "whose jobs may name private addresses sets ORRERY_PRIVATE_INPUTS.",
                field=field,
            ) from None
        except (TimedOut, ConnectionFailed) as error:
            raise InputUnavailable(error.message) from None
        except RoutingError as error:
            raise InputRejected(f"{field} cannot be fetched. {error.message}", field=field) from None
        if response.status >= 500 or response.status in _PASSING:
            raise InputUnavailable(f"{peer.name} answered {response.status}.")
        if response.status >= 400:
            raise InputRejected(f"{peer.name} answered {response.status}.", field=field)
        return response


def _needed(media: Media | None, names: tuple[str, str]) -> Media:
    if media is None:
        raise InputRejected(f"There is nothing to work on: send {' or '.join(names)}.", field="input")
    return media


def _decoded(text: str, field: str, most: int) -> bytes:
    """The bytes of base64, also where a browser's `data:` URL is around it."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        body = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InputRejected(f"{field} is no base64.", field=field) from None
    if len(body) > most:
        raise InputRejected(f"{field} exceeds {most:,} bytes.", field=field)
    return body


def _check_url(url: str, field: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
    except ValueError:
        usable = False
    if not usable:
        raise InputRejected(
            f"{field} must be an http:// or https:// address, without a user in it.", field=field
        )
