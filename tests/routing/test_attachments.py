"""What jobs point to: fetched once, under the guard, without any key."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any

import pytest

from routing.attachments import gather
from routing.errors import InputRejected, InputUnavailable, RoutingError
from routing.media import wav
from routing.transport import Transport
from routing.values import Attachments, Capability, Feature
from tests.routing import factories
from tests.routing.factories import KEY, png
from tests.routing.runs import ran
from tests.routing.servers import chat, scripted
from tests.ssrf import CORPUS, trap, watched

_PICTURE = (200, png(), {"content-type": "image/png"})
_HTML = {"content-type": "text/html"}


@pytest.fixture(scope="module")
def transport() -> Iterator[Transport]:
    made = Transport(private_inputs=True, max_body=30_000_000)
    yield made
    made.close()


def _feature(capability: Capability = Capability.VISION) -> Feature:
    schema = {"properties": {"text": {}, "url": {"x-fetch": "page"}, "image_url": {}, "image_base64": {}}}
    return factories.feature(capability, input_schema=schema)


def _gathered(
    transport: Transport, capability: Capability, seconds: float | None = None, **values: Any
) -> Attachments:
    return gather(_feature(capability), values, transport, seconds=seconds)


def test_a_picture_by_address_or_inline(transport: Transport) -> None:
    with scripted(_PICTURE) as server:
        [image] = _gathered(transport, Capability.VISION, image_url=server.base_url).images
    assert (image.body, image.media_type) == (png(), "image/png")
    assert {"authorization", "x-api-key", "cookie"}.isdisjoint(server.seen[0].headers)
    encoded = base64.b64encode(png()).decode()
    for inline in (encoded, f"data:image/jpeg;base64,{encoded}", f"{encoded[:20]}\n {encoded[20:]}"):
        assert _gathered(transport, Capability.VISION, image_base64=inline).images == (image,)


def test_a_recording_and_a_page(transport: Transport) -> None:
    sound = wav(bytes(800), 8000)
    with scripted((200, sound, {"content-type": "text/plain"})) as server:  # its bytes say what it is
        found = _gathered(transport, Capability.TRANSCRIPTION, audio_url=server.base_url).audio
    assert found is not None
    assert (found.body, found.media_type) == (sound, "audio/wav")
    with scripted((200, b"<title>Job</title><p>Berlin", _HTML)) as server:
        assert _gathered(transport, Capability.TEXT, url=server.base_url).page == "Job\nBerlin"
        unasked = _gathered(transport, Capability.TEXT, url=server.base_url, text="I have it here.")
        assert unasked == Attachments()
    assert len(server.seen) == 1


def test_other_features_are_left_alone(transport: Transport) -> None:
    plain = factories.feature()  # a text feature whose schema asks for no page
    assert gather(plain, {"url": "http://127.0.0.1:1/"}, transport, seconds=None) == Attachments()
    speech = factories.feature(Capability.SPEECH)
    assert gather(speech, {"image_url": "http://127.0.0.1:1/"}, transport, seconds=None) == Attachments()


@pytest.mark.parametrize(
    ("capability", "values", "match"),
    [
        (Capability.VISION, {}, "send image_url or image_base64"),
        (Capability.TRANSCRIPTION, {"text": "x"}, "send audio_url or audio_base64"),
        (Capability.VISION, {"image_base64": "###"}, "input/image_base64 is no base64"),
        (Capability.VISION, {"image_base64": "AAAA"}, "first bytes"),
        (Capability.VISION, {"image_base64": base64.b64encode(wav(b"", 8000)).decode()}, "first bytes"),
        (Capability.VISION, {"image_base64": "A" * 15_000_000}, "exceeds"),
        (Capability.VISION, {"image_url": "ftp://example.com/x.png"}, "http"),
        (Capability.VISION, {"image_url": "http://user:pass@example.com/x.png"}, "without a user"),
        (Capability.VISION, {"image_url": "http://[::1/x.png"}, "http"),
        (Capability.TEXT, {"url": "nowhere"}, "input/url"),
    ],
)
def test_inputs_that_no_call_can_be_made_of(
    transport: Transport, capability: Capability, values: dict[str, Any], match: str
) -> None:
    with pytest.raises(InputRejected, match=match):
        _gathered(transport, capability, **values)


@pytest.mark.parametrize(
    ("answer", "expected", "match"),
    [
        ((404, b""), InputRejected, "404"),
        ((302, b"", {"location": "http://127.0.0.1:9/x"}), InputRejected, "redirect"),
        ((200, b"<html>", _HTML), InputRejected, "first bytes"),
        ((200, png() + bytes(11 * 1024 * 1024)), InputRejected, "exceeds"),
        ((503, b""), InputUnavailable, "503"),
        ((429, b""), InputUnavailable, "429"),
    ],
)
def test_answers_that_are_no_picture(
    transport: Transport, answer: tuple[Any, ...], expected: type[RoutingError], match: str
) -> None:
    with scripted(answer) as server, pytest.raises(expected, match=match) as refused:
        _gathered(transport, Capability.VISION, image_url=server.base_url)
    assert refused.value.error_class == "input"


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        ((200, b"%PDF-1.7", {"content-type": "application/pdf"}), "no web page"),
        ((200, b"<script>x</script>", _HTML), "without any text"),
    ],
)
def test_answers_that_are_no_page(transport: Transport, answer: tuple[Any, ...], match: str) -> None:
    with scripted(answer) as server, pytest.raises(InputRejected, match=match):
        _gathered(transport, Capability.TEXT, url=server.base_url)


def test_nobody_waits_for_an_address_longer_than_the_job_has(
    transport: Transport,
) -> None:
    with scripted(_PICTURE) as server:
        server.gate = lambda: time.sleep(2)
        began = time.monotonic()
        with pytest.raises(InputUnavailable):
            _gathered(transport, Capability.VISION, seconds=0.3, image_url=server.base_url)
        assert time.monotonic() - began < 1.5


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        (Capability.VISION, "image_url"),
        (Capability.TRANSCRIPTION, "audio_url"),
        (Capability.TEXT, "url"),
    ],
)
def test_nothing_inside_is_reached(
    monkeypatch: pytest.MonkeyPatch, capability: Capability, name: str
) -> None:
    with trap() as (port, came):
        for address in CORPUS:
            guarded = Transport()
            with watched(monkeypatch) as spy, pytest.raises((InputRejected, InputUnavailable)):
                _gathered(guarded, capability, seconds=2, **{name: address.url(port)})
            guarded.close()
            assert spy.seen == [], address
    assert came == []


def test_a_run_fetches_once_however_many_routes_it_tries() -> None:
    busy = (503, {"error": {"message": "busy"}})
    with scripted(_PICTURE) as pictures, scripted(busy) as bad, scripted((200, chat("A dot."))) as good:
        routes = [factories.route(factories.provider(server.base_url, key=KEY)) for server in (bad, good)]
        plan = factories.plan(*routes, of=_feature(), user="What is it?")
        outcome = ran(plan, {"image_url": pictures.base_url})
    assert outcome.reply is not None
    assert (len(pictures.seen), len(bad.seen), len(good.seen)) == (1, 1, 1)
    assert "authorization" not in pictures.seen[0].headers
    [text, image] = good.seen[0].body["messages"][-1]["content"]
    assert text == {"type": "text", "text": "What is it?"}
    assert image["image_url"]["url"] == f"data:image/png;base64,{base64.b64encode(png()).decode()}"


def test_what_cannot_be_fetched_is_no_providers_fault() -> None:
    with scripted((200, chat())) as server, scripted((503, b"")) as pictures:
        plan = factories.plan(factories.route(factories.provider(server.base_url)), of=_feature())
        passing = ran(plan, {"image_url": pictures.base_url})
        broken = ran(plan, {"image_base64": "###"})
        assert server.seen == []
    assert (passing.error_class, passing.retryable, passing.attempts) == ("input", True, ())
    assert (broken.error_class, broken.retryable) == ("input", False)


def test_a_page_is_read_as_text_and_a_picture_is_not() -> None:
    page = (200, b"<main>We look for an engineer", _HTML)
    with scripted(page) as pages, scripted((200, chat())) as server:
        owner = factories.provider(server.base_url)
        plan = factories.plan(
            factories.route(owner), of=_feature(Capability.TEXT), user="Extract: {{ text }}"
        )
        assert ran(plan, {"url": pages.base_url}).reply
        plan = factories.plan(factories.route(owner), of=_feature(Capability.TEXT))
        assert ran(plan, {"image_base64": base64.b64encode(png()).decode(), "note": "hi"}).reply
    assert server.seen[0].body["messages"] == [
        {"role": "user", "content": "Extract: We look for an engineer"}
    ]
    [text, image] = server.seen[1].body["messages"][0]["content"]
    assert text["text"] == '{"note":"hi"}'  # the whole input, without the picture
    assert image["type"] == "image_url"


def test_a_picture_that_lies_somewhere_is_fetched_from_there() -> None:
    with scripted(_PICTURE) as pictures, scripted() as server:
        server.script.append((200, {"data": [{"url": f"{pictures.base_url}/p.png"}]}))
        route = factories.route(factories.provider(server.base_url, key=KEY))
        plan = factories.plan(route, capability=Capability.IMAGE)
        outcome = ran(plan, {"prompt": "A dot"})
        pictures.script[:] = [(200, b"<html>")]
        lost = ran(plan, {"prompt": "A dot"})
    assert outcome.reply is not None
    assert (outcome.reply.artifact, outcome.reply.media_type) == (png(), "image/png")
    assert "authorization" not in pictures.seen[0].headers
    assert (lost.error_class, lost.attempts[0].called) == ("server_error", True)
    assert lost.attempts[0].usage.images == 1


@pytest.mark.parametrize(
    "url",
    ["http://169.254.169.254/p.png", "http://metadata.google.internal/p.png", "http://[fd00:ec2::254]/"],
)
def test_a_provider_cannot_send_us_where_nothing_may_go(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with scripted((200, {"data": [{"url": url}]})) as server:
        plan = factories.plan(
            factories.route(factories.provider(server.base_url)), capability=Capability.IMAGE
        )
        known = ("127.0.0.1", int(server.base_url.split(":")[2].split("/")[0]))
        with watched(monkeypatch, known) as spy:
            outcome = ran(plan, {"prompt": "A dot"})
    assert outcome.error_class == "server_error"
    assert "metadata" in str(outcome.error_message)
    assert spy.seen == []
