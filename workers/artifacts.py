"""Where recordings and pictures lie: a folder or an object store. Never the database, never Redis."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

_GONE = (NotFoundError, FileNotFoundError)
_EXTENSIONS = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg",
    "audio/opus": "opus",
    "audio/aac": "aac",
    "audio/flac": "flac",
    "audio/pcm": "pcm",
    "audio/mp4": "m4a",
    "audio/webm": "webm",
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
}


class ArtifactError(Exception):
    """The artifact store cannot be used, reached or written to; the message says which and why."""


class Artifacts:
    """An artifact store.

    Args:
        url: a folder, or `s3://bucket/prefix`. Credentials, region and endpoint of an S3 store come from the
            usual AWS_* variables or the machine's role, as its own clients read them.
    """

    def __init__(self, url: str) -> None:
        self._store: ObjectStore
        try:
            if "://" in url and not url.startswith("file://"):
                self._store = from_url(url)
            else:
                self._store = LocalStore(
                    Path(url.removeprefix("file://")), mkdir=True, automatic_cleanup=True
                )
        except (BaseError, OSError) as error:
            raise ArtifactError(
                f"Artifacts cannot lie in {url}: {error}. Set ORRERY_ARTIFACTS to a folder that can be "
                "written, or to s3://bucket/prefix."
            ) from error

    def write(self, job_id: UUID, run: int, body: bytes, media_type: str) -> str:
        """Keep a run's artifact; returns its key. Two runs of a job never share a key."""
        key = f"{_folder(job_id)}/{job_id}-{run}.{_EXTENSIONS.get(media_type, 'bin')}"
        try:
            obstore.put(self._store, key, body)
        except (BaseError, OSError) as error:
            raise ArtifactError(f"The artifact store refused {key}: {error}") from error
        return key

    def size(self, key: str) -> int | None:
        """Bytes of an artifact, or None where it is gone."""
        try:
            return int(obstore.head(self._store, key)["size"])
        except _GONE:
            return None
        except (BaseError, OSError) as error:
            raise ArtifactError(f"The artifact store did not answer for {key}: {error}") from error

    def stream(self, key: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes [start, end) of an artifact, in pieces of at most 1 MiB."""
        size = self.size(key)
        stop = size if end is None else end
        for offset in range(start, stop or 0, 1 << 20):
            yield bytes(
                obstore.get_range(self._store, key, start=offset, end=min(offset + (1 << 20), stop or 0))
            )

    def delete(self, job_ids: Collection[UUID]) -> int:
        """Delete whatever runs of these jobs have written, recorded or not; returns how many artifacts.

        What is gone already is no error, so that who died in the middle may begin again.
        """
        wanted = {str(job_id) for job_id in job_ids}
        try:
            keys = [
                key
                for folder in sorted({_folder(job_id) for job_id in job_ids})
                for key in self._keys(folder)
                if key.rpartition("/")[2][:_ID_LENGTH] in wanted
            ]
            self._remove(keys)
        except (BaseError, OSError) as error:
            raise ArtifactError(f"The artifact store did not delete: {error}") from error
        return len(keys)

    def _keys(self, folder: str) -> Iterator[str]:
        for page in obstore.list(self._store, folder):
            yield from (str(found["path"]) for found in page)

    def _remove(self, keys: Sequence[str]) -> None:
        """Together, as an object store likes it best; one by one where others delete the same."""
        try:
            obstore.delete(self._store, keys)
        except _GONE:
            for key in keys:
                with suppress(*_GONE):
                    obstore.delete(self._store, key)


_ID_LENGTH = 36


def _folder(job_id: UUID) -> str:
    return str(job_id)[:8]  # the first 32 bits of a UUIDv7: a minute's jobs, or so
