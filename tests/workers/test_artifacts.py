"""The artifact store: a folder, and an object store that speaks S3."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest

from store.ids import new_id
from workers.artifacts import ArtifactError, Artifacts

AUDIO = b"RIFF" + bytes(range(256)) * 9000  # more than two pieces


class _Bucket(BaseHTTPRequestHandler):
    """The part of S3 that an artifact needs: PUT, HEAD, ranged GET, listing and deletion of one bucket."""

    objects: dict[str, bytes]
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        assert self.headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=key-id/")
        self.objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, b"")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        """Deletes what a document names, as `POST /bucket?delete` does."""
        document = self.rfile.read(int(self.headers["Content-Length"])).decode()
        keys = re.findall("<Key>(.*?)</Key>", document)
        for key in keys:
            self.objects.pop(f"/audio/{key}", None)
        deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        self._answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

    def _list(self, prefix: str) -> None:
        found = [path for path in self.objects if path.startswith(f"/audio/{prefix}")]
        contents = "".join(
            f"<Contents><Key>{path.removeprefix('/audio/')}</Key><Size>1</Size><ETag>1</ETag>"
            "<LastModified>2026-11-21T00:00:00.000Z</LastModified></Contents>"
            for path in found
        )
        self._answer(200, f"<ListBucketResult>{contents}</ListBucketResult>".encode())

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        if "list-type" in asked:
            self._list(asked["prefix"][0])
            return
        content = self.objects.get(self.path)
        if content is None:
            self._answer(404, b"")
        elif "Range" in self.headers:
            first, last = (int(n) for n in self.headers["Range"].removeprefix("bytes=").split("-"))
            piece = content[first : last + 1]
            self._answer(206, piece, f"bytes {first}-{first + len(piece) - 1}/{len(content)}")
        else:
            self._answer(200, content)

    def _answer(self, status: int, body: bytes, content_range: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Sat, 21 Nov 2026 00:00:00 GMT")
        if content_range is not None:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """The objects of `s3://audio`, by path."""
    _Bucket.objects = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Bucket)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_address[1]}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key-id",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "eu-central-1",
    }.items():
        monkeypatch.setenv(name, value)
    yield _Bucket.objects
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_folder_keeps_artifacts(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "artifacts"
    _check(Artifacts(str(folder)))
    assert [path.suffix for path in folder.rglob("*.*")] == [".wav"]


def test_an_object_store_keeps_artifacts_under_its_prefix(bucket: dict[str, bytes]) -> None:
    _check(Artifacts("s3://audio/orrery"))
    [path] = bucket
    assert path.startswith("/audio/orrery/")
    assert bucket[path] == AUDIO


def test_what_a_job_left_is_deleted_from_either(tmp_path: Path, bucket: dict[str, bytes]) -> None:
    for artifacts in (Artifacts(str(tmp_path)), Artifacts("s3://audio/orrery")):
        job, other = new_id(), new_id()
        lost, found = (artifacts.write(job, run, b"x", "audio/mpeg") for run in (1, 12))
        kept = artifacts.write(other, 1, b"x", "audio/mpeg")
        assert artifacts.delete([job, new_id()]) == 2
        assert [artifacts.size(key) for key in (lost, found, kept)] == [None, None, 1]
        assert artifacts.delete([job]) == 0
    assert artifacts.delete([]) == 0


def test_two_runs_of_a_job_do_not_share_a_key(tmp_path: Path) -> None:
    artifacts, job = Artifacts(str(tmp_path)), uuid4()
    first, second = (artifacts.write(job, run, b"x", "audio/mpeg") for run in (1, 2))
    assert first != second
    assert first.endswith(".mp3")


def test_a_store_that_refuses_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    with pytest.raises(ArtifactError, match="a file"):
        Artifacts(str(tmp_path / "a file")).write(uuid4(), 1, b"x", "audio/wav")


def _check(artifacts: Artifacts) -> None:
    key = artifacts.write(uuid4(), 1, AUDIO, "audio/wav")
    assert artifacts.size(key) == len(AUDIO)
    assert b"".join(artifacts.stream(key)) == AUDIO
    assert b"".join(artifacts.stream(key, start=4, end=1_500_000)) == AUDIO[4:1_500_000]
    assert artifacts.size("none/such.wav") is None
