"""What a job took and made, as far as a page can hold it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import escape

from workers.records import Job

_MOST_CHARACTERS = 8000
_MOST_BYTES = 12_000  # as they stand in the page: `<` takes four, an Arabic letter two
_MOST_BYTES_IN = 4000
_FIRST_NUMBERS = 8
_MOST_CATEGORIES = 20

_PRETTY = json.JSONEncoder(indent=2, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The beginning of a text. `length`: characters of all of it; None where it was not read to its end."""

    text: str
    is_cut: bool
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a job made beside its record. `kind`: what shows it: `audio`, `image` or `file`."""

    kind: str
    href: str
    media_type: str


@dataclass(frozen=True, slots=True)
class Category:
    """What a text was judged by. `score` None: the provider tells none."""

    name: str
    is_hit: bool
    score: float | None


@dataclass(frozen=True, slots=True)
class Embedding:
    """Vectors: how many, of how many numbers each, and how the first one begins."""

    count: int
    dimension: int
    first: Sequence[float]


@dataclass(frozen=True, slots=True)
class Made:
    """What a job made, by its kind; what it did not make is None."""

    text: Excerpt | None
    artifact: Artifact | None
    flagged: bool | None
    categories: Sequence[Category]
    embedding: Embedding | None
    data: Excerpt | None
    finish_reason: str | None


def made(job: Job) -> Made | None:
    """What the job made; None where it has no result."""
    result = job.result
    if result is None:
        return None
    text, data, flagged = result.get("text"), result.get("data"), result.get("flagged")
    categories = _categories(data) if flagged is not None else []
    return Made(
        text=None if text is None else excerpt(str(text)),
        artifact=_artifact(job, str(result.get("media_type"))),
        flagged=flagged,
        categories=categories,
        embedding=_embedding(result.get("embeddings") or [result.get("embedding") or []]),
        data=None if data is None or categories else pretty(data),
        finish_reason=result.get("finish_reason"),
    )


def taken(job: Job) -> Excerpt:
    """The job's input."""
    return pretty(job.input, most_bytes=_MOST_BYTES_IN)


def excerpt(text: str, *, most_bytes: int = _MOST_BYTES) -> Excerpt:
    """The beginning of the text that a page can hold."""
    shown = text[:_MOST_CHARACTERS]
    while (size := len(escape(shown).encode())) > most_bytes:
        shown = shown[: len(shown) * most_bytes // size]
    return Excerpt(shown, len(shown) < len(text), len(text))


def pretty(value: Any, *, most_bytes: int = _MOST_BYTES) -> Excerpt:
    """The beginning of the value as JSON; what comes after it is not even written."""
    parts: list[str] = []
    left = _MOST_CHARACTERS
    for part in _PRETTY.iterencode(value):
        parts.append(part)
        left -= len(part)
        if left < 0:
            break
    begun = excerpt("".join(parts), most_bytes=most_bytes)
    return Excerpt(begun.text, begun.is_cut or left < 0)


def _artifact(job: Job, media_type: str) -> Artifact | None:
    if job.artifact_key is None:
        return None
    kind = media_type.partition("/")[0]
    shown = kind if kind in ("audio", "image") else "file"
    return Artifact(shown, f"/jobs/{job.id}/artifact", media_type)


def _categories(data: Any) -> list[Category]:
    """The worst first."""
    if not isinstance(data, Mapping) or not isinstance(data.get("categories"), Mapping):
        return []
    scores = data.get("category_scores")
    found = list(_judged(data["categories"], scores if isinstance(scores, Mapping) else {}))
    return sorted(found, key=lambda one: (not one.is_hit, -(one.score or 0)))[:_MOST_CATEGORIES]


def _judged(hits: Mapping[str, Any], scores: Mapping[str, Any]) -> Iterator[Category]:
    for name, hit in hits.items():
        score = scores.get(name)
        yield Category(name, bool(hit), float(score) if isinstance(score, int | float) else None)


def _embedding(vectors: Sequence[Sequence[float]]) -> Embedding | None:
    if not vectors or not vectors[0]:
        return None
    return Embedding(len(vectors), len(vectors[0]), vectors[0][:_FIRST_NUMBERS])
