from __future__ import annotations

import io
import wave

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.media import audio_type, extension, image_type, wav, wav_seconds
from routing.pages import text_of
from tests.routing.factories import png


@pytest.mark.parametrize(
    ("body", "picture", "recording"),
    [
        (png(), "image/png", None),
        (b"\xff\xd8\xff\xe0JFIF", "image/jpeg", None),
        (b"GIF89a...", "image/gif", None),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp", None),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", None, "audio/wav"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", None, None),
        (b"ID3\x04", None, "audio/mpeg"),
        (b"\xff\xfb\x90", None, "audio/mpeg"),
        (b"OggS", None, "audio/ogg"),
        (b"fLaC", None, "audio/flac"),
        (b"\x00\x00\x00\x20ftypM4A ", None, "audio/mp4"),
        (b"\x1aE\xdf\xa3", None, "audio/webm"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'>", None, None),
        (b"<html>", None, None),
        (b"", None, None),
    ],
)
def test_the_first_bytes_say_what_it_is(body: bytes, picture: str | None, recording: str | None) -> None:
    assert image_type(body) == picture
    assert audio_type(body) == recording
    for known in (picture, recording):
        assert known is None or extension(known) != "bin"


@given(st.binary(max_size=400), st.sampled_from([8_000, 24_000, 44_100]))
def test_bare_samples_become_a_file_that_plays(samples: bytes, rate: int) -> None:
    made = wav(samples, rate)
    with wave.open(io.BytesIO(made)) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, rate)
        assert sound.readframes(sound.getnframes()) == samples[: len(samples) // 2 * 2]
    assert wav_seconds(made) == pytest.approx(len(samples) // 2 / rate)


@given(st.binary(max_size=60).map(lambda rest: b"RIFF\x00\x00\x00\x00WAVE" + rest))
def test_a_broken_file_has_a_length_or_none(body: bytes) -> None:
    seconds = wav_seconds(body)
    assert seconds is None or seconds >= 0


_PAGE = """<html><head><title>Jobs &amp; more</title><style>.x{}</style>
<script type="application/ld+json">{"@type": "JobPosting", "title": "Engineer"}</script></head>
<body><nav>Home About</nav><main><h1>Senior <b>Python</b> engineer</h1><p>Berlin.<br>75,000 EUR</p>%s</main>
<script>alert(1)</script><footer>Imprint</footer></body></html>"""


def test_a_page_is_what_a_reader_sees_and_what_it_states_for_machines() -> None:
    long = _PAGE % ("<p>" + "We write software. " * 20 + "</p>")
    text = text_of(long.encode(), "text/html; charset=utf-8", most=10_000)
    assert text.splitlines()[:5] == [
        "Jobs & more",
        '{"@type": "JobPosting", "title": "Engineer"}',
        "Senior Python engineer",
        "Berlin.",
        "75,000 EUR",
    ]
    assert not {"alert", "Home", "Imprint", ".x{}"} & set(text.replace("(", " ").split())


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b" a <b>c</b> ", "text/plain", "a <b>c</b>"),
        ("Größe".encode("latin-1"), "text/html; charset=iso-8859-1", "Größe"),
        ('<meta charset="utf-8">Größe'.encode(), "text/html", "Größe"),
        (b"abc", "text/html; charset=nonsense", "abc"),
        (b"abc", "text/html; charset=idna", "abc"),
        (b"", "text/html", ""),
        (b"<script>x</script>", "text/html", ""),
        (b"x" * 50, "text/plain", "x" * 10),
    ],
)
def test_what_pages_are_written_in(body: bytes, content_type: str, expected: str) -> None:
    assert text_of(body, content_type, most=10) == expected


@given(st.binary(max_size=200))
def test_any_bytes_are_some_page(body: bytes) -> None:
    assert len(text_of(body, "text/html", most=100)) <= 100
