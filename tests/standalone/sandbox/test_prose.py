"""What the models say: varied, in the language and of the kind asked for, valid where JSON is asked for."""

import itertools
import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import jsonschema
import pytest

from standalone.sandbox.prose import write
from standalone.sandbox.prose.prompt import Prompt

Ask = Callable[..., httpx.Response]

_SIGNS = [
    "aries",
    "taurus",
    "gemini",
    "cancer",
    "leo",
    "virgo",
    "libra",
    "scorpio",
    "sagittarius",
    "capricorn",
    "aquarius",
    "pisces",
]
_ARABIC = re.compile("[\u0600-\u06ff]")


def _text(answer: httpx.Response) -> str:
    return str(answer.json()["choices"][0]["message"]["content"])


@pytest.mark.parametrize("language", ["en", "ar"])
def test_a_month_of_horoscopes_never_repeats_itself(language: str) -> None:
    texts = [
        write(
            Prompt(
                "You write daily horoscopes.",
                (("user", f"Sign: {sign}\nLanguage: {language}\nDate: 2026-11-{day:02}"),),
            ),
            "model",
        )
        for sign in _SIGNS
        for day in range(1, 31)
    ]
    assert len(set(texts)) == 12 * 30
    assert all(80 <= len(text.split()) <= 150 for text in texts)
    assert not any("{" in text for text in texts)
    # Variety, not a changed number: two texts share less than half of their sentences.
    sentences = [set(text.split(".")) for text in texts]
    shared = [len(one & other) / len(one) for one, other in itertools.pairwise(sentences)]
    assert sum(shared) / len(shared) < 0.3


def test_a_horoscope_names_its_sign_in_the_language_asked_for(chat: Ask) -> None:
    english = _text(chat("Write the horoscope for leo."))
    assert "Leo" in english
    assert not _ARABIC.search(english)
    arabic = _text(chat('{"sign": "leo", "language": "ar", "task": "horoscope"}'))
    assert "برج الأسد" in arabic
    assert not re.search("[A-Za-z]", arabic)
    assert "برج الأسد" in _text(chat("اكتب توقعات برج الأسد لهذا اليوم"))


_KINDS = [
    ("Tarot reading. Cards: The Tower, Six of Cups, The Sun", ("The Tower", "Six of Cups", "The Sun")),
    ("Write a cover letter. Job: Site Reliability Engineer", ("Site Reliability Engineer",)),
    ("Draft a CV for the role: Night Nurse", ("Night Nurse", "Profile:", "Skills:")),
    ("Give analytics insights for metrics: signups = 420, churn = 3%", ("signups 420", "churn 3%")),
    ("Please write code in Go that removes duplicates", ("```go",)),
    ("Emergency: my neighbour fell from a ladder", ("my neighbour fell from a ladder",)),
    ("Which tea helps against a cold?", ("Which tea helps against a cold",)),
]


@pytest.mark.parametrize(("question", "expected"), _KINDS)
def test_the_kind_of_text_follows_the_prompt(chat: Ask, question: str, expected: tuple[str, ...]) -> None:
    text = _text(chat(question))
    assert [part for part in expected if part not in text] == []


@pytest.mark.parametrize(
    "question",
    [
        "قراءة التاروت: المستقبل",
        "اكتب خطاب تقديم لوظيفة محاسب",
        "أعد كتابة السيرة الذاتية",
        "ما أفضل وقت للمشي؟",
        "حالة طوارئ في المنزل",
        "حلّل مؤشرات المبيعات",
    ],
)
def test_arabic_questions_get_arabic_answers(chat: Ask, question: str) -> None:
    text = _text(chat(question))
    assert not re.search("[A-Za-z]", text)
    assert len(_ARABIC.findall(text)) > 80


_SCHEMAS: list[dict[str, Any]] = [
    {
        "type": "object",
        "properties": {
            "title": {"type": "string", "maxLength": 12},
            "email": {"type": "string", "format": "email"},
            "score": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
            "count": {"type": "integer", "minimum": 3, "maximum": 4},
            "level": {"enum": ["junior", "senior"]},
            "version": {"const": 2},
            "active": {"type": "boolean"},
            "note": {"type": ["string", "null"]},
            "posted": {"type": "string", "format": "date"},
            "code": {"type": "string", "pattern": "^[A-Z]{3}$"},
            "skills": {"type": "array", "items": {"type": "string"}, "minItems": 4, "uniqueItems": True},
        },
        "required": ["title", "email", "score", "count", "level", "version", "active", "note", "skills"],
        "additionalProperties": False,
    },
    {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "minLength": 40},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                },
                "required": ["name", "children"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/node",
    },
    {
        "type": "object",
        "properties": {
            "either": {"anyOf": [{"type": "null"}, {"type": "integer", "multipleOf": 5, "minimum": 7}]},
            "both": {
                "allOf": [
                    {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
                    {"properties": {"b": {"type": "integer"}}, "required": ["b"]},
                ]
            },
            "pair": {
                "type": "array",
                "prefixItems": [{"type": "string"}, {"type": "number"}],
                "items": False,
            },
            "low": {"type": "number", "maximum": -3},
        },
        "required": ["either", "both", "pair", "low"],
    },
    {"type": "array", "items": {"type": "integer", "exclusiveMinimum": 0}, "minItems": 5, "maxItems": 5},
]


@pytest.mark.parametrize("schema", _SCHEMAS)
def test_structured_answers_satisfy_their_schema(chat: Ask, message: Ask, schema: dict[str, Any]) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    for number in range(5):
        document = json.loads(_text(chat(f"Extract, case {number}", response_format=wanted)))
        jsonschema.validate(document, schema, format_checker=jsonschema.FormatChecker())
    output = {"format": {"type": "json_schema", "schema": schema}}
    document = json.loads(message("Extract", output_config=output).json()["content"][0]["text"])
    jsonschema.validate(document, schema)


def test_json_mode_answers_with_the_keys_that_the_prompt_names(chat: Ask) -> None:
    question = 'Return JSON with "company", "email" and "salary". Text: write to jobs@acme.test'
    document = json.loads(_text(chat(question, response_format={"type": "json_object"})))
    assert set(document) == {"company", "email", "salary"}
    assert document["email"] == "jobs@acme.test"
    assert json.loads(_text(chat(question))).keys() == document.keys()
