"""JSON answers: a document that satisfies a JSON schema, or the keys that a prompt names.

Understood: ``type`` (also a list), ``enum``, ``const``, ``properties``, ``required``, ``items``,
``prefixItems``, ``minItems``/``maxItems``, ``uniqueItems``, the bounds of numbers and ``multipleOf``, the
lengths of strings, ``format``, ``anyOf``/``oneOf``/``allOf``, and ``$ref`` into the same document. A
``pattern`` is met if one of a few usual shapes meets it.
"""

import json
import math
import random
import re
from collections.abc import Mapping
from typing import Any

from standalone.sandbox.prose.prompt import Prompt

Schema = Mapping[str, Any]

_NAMED_KEY = re.compile(r"[\"`](\w{1,40})[\"`]")
_ASKS = ("return", "respond", "answer", "reply", "output", "produce", "extract", "أعد", "أجب")
_OPTIONAL_DEPTH = 3
_MAX_DEPTH = 12

_EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+\b")
_URL = re.compile(r"https?://[^\s\"'<>]+")
_FORMATS: dict[str, tuple[str, ...]] = {
    "date": ("2026-12-01", "2027-01-15", "2026-11-30"),
    "date-time": ("2026-12-01T09:00:00Z", "2027-01-15T14:30:00Z"),
    "time": ("09:00:00Z", "14:30:00Z"),
    "duration": ("P1D", "PT2H"),
    "email": ("contact@example.com", "team@example.org"),
    "uri": ("https://example.com/", "https://example.org/about"),
    "hostname": ("example.com", "www.example.org"),
    "ipv4": ("192.0.2.10", "198.51.100.7"),
    "ipv6": ("2001:db8::1", "2001:db8::7"),
    "uuid": ("0193a1b2-0000-7000-8000-00000000abcd", "0193a1b2-0000-7000-8000-00000000ef01"),
}
_BY_NAME: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("email", _FORMATS["email"]),
    ("url", _FORMATS["uri"]),
    ("date", _FORMATS["date"]),
    ("phone", ("+1 202 555 0134", "+44 20 7946 0018")),
    ("company", ("Northwind Traders", "Blue Harbour Ltd", "Cedar & Pine")),
    ("location", ("Amman", "Lisbon", "Toronto", "Remote")),
    ("city", ("Amman", "Lisbon", "Toronto", "Oslo")),
    ("country", ("Jordan", "Portugal", "Canada", "Norway")),
    ("title", ("Data Analyst", "Project Coordinator", "Software Engineer")),
    ("role", ("Data Analyst", "Project Coordinator", "Software Engineer")),
    ("skill", ("SQL", "Python", "Negotiation", "Planning", "Writing")),
    ("salary", ("45,000 a year", "by agreement")),
    ("currency", ("USD", "EUR", "JOD")),
    ("language", ("en", "ar")),
    ("name", ("Lina Haddad", "Omar Nasser", "Grace Miller")),
    (
        "summary",
        ("A clear and complete entry; nothing important is missing.", "The main points are in place."),
    ),
    ("reason", ("All requirements are met.", "The content is clear and appropriate.")),
)
_PLAIN = ("clear and complete", "as described", "steady progress", "well prepared", "worth a closer look")
_PATTERN_SHAPES = (
    *(value for values in _FORMATS.values() for value in values),
    *(
        "A",
        "a",
        "1",
        "12",
        "2026",
        "12345",
        "AB",
        "en",
        "en-US",
        "USD",
        "A1",
        "AB-1234",
        "ABC-123",
        "ab12cd",
        "a-b",
    ),
    *(
        "09:30",
        "2026-12",
        "1.0",
        "1.0.0",
        "v1.0.0",
        "#336699",
        "+12025550134",
        "12.50",
        "$12.50",
        "A1B2C3D4",
        "none",
    ),
)


def wants_json(prompt: Prompt) -> bool:
    """Whether the words alone ask for a JSON answer."""
    return "json" in prompt.cues and any(verb in prompt.cues for verb in _ASKS)


def write_json(prompt: Prompt, dice: random.Random, schema: Schema | None) -> str:
    """A JSON document; an empty schema, or none, leaves the keys to the prompt."""
    schema = schema or _schema_in(prompt)
    document = _Writer(schema, prompt.question, dice).value(schema, "answer", 0)
    return json.dumps(document, ensure_ascii=False)


def _schema_in(prompt: Prompt) -> Schema:
    """The schema that the prompt quotes, else an object with the keys that it names."""
    text = f"{prompt.system}\n{prompt.question}"
    decoder = json.JSONDecoder()
    for brace in list(re.finditer(r"\{", text))[:5]:
        try:
            found, _ = decoder.raw_decode(text, brace.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and isinstance(found.get("properties"), dict):
            return found
    keys = dict.fromkeys(_NAMED_KEY.findall(text)[:20]) or {"answer": None}
    return {"type": "object", "properties": {key: {"type": "string"} for key in keys}, "required": list(keys)}


class _Writer:
    def __init__(self, root: Schema, question: str, dice: random.Random) -> None:
        self._root = root
        self._question = question
        self._dice = dice

    def value(self, schema: Any, name: str, depth: int) -> Any:
        if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
            return None
        schema = self._settled(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._dice.choice(schema["enum"])
        match self._type(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "integer":
                return self._integer(schema)
            case "number":
                return self._number(schema)
            case "boolean":
                return self._dice.random() < 0.7
            case "null":
                return None
        return self._string(schema, name)

    def _settled(self, schema: Schema) -> Schema:
        """Follow references and choose among alternatives until plain keywords are left."""
        for _ in range(_MAX_DEPTH):
            if isinstance(schema.get("$ref"), str):
                rest = {key: value for key, value in schema.items() if key != "$ref"}
                schema = _merged(self._resolve(schema["$ref"]), rest)
            elif branches := schema.get("anyOf") or schema.get("oneOf"):
                rest = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}
                schema = _merged(rest, next((b for b in branches if b.get("type") != "null"), branches[0]))
            elif schema.get("allOf"):
                parts = schema["allOf"]
                schema = {key: value for key, value in schema.items() if key != "allOf"}
                for part in parts:
                    schema = _merged(schema, self._settled(part))
            else:
                break
        return schema

    def _resolve(self, reference: str) -> Schema:
        target: Any = self._root
        for step in reference.lstrip("#").strip("/").split("/") if reference != "#" else ():
            target = (
                target.get(step.replace("~1", "/").replace("~0", "~"), {})
                if isinstance(target, Mapping)
                else {}
            )
        return target if isinstance(target, Mapping) else {}

    @staticmethod
    def _type(schema: Schema) -> str:
        stated = schema.get("type")
        if isinstance(stated, list):
            return next((one for one in stated if one != "null"), "null")
        if isinstance(stated, str):
            return stated
        if "properties" in schema:
            return "object"
        if "items" in schema or "prefixItems" in schema:
            return "array"
        return "number" if "minimum" in schema or "maximum" in schema else "string"

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        required = set(schema.get("required", ()))
        properties = schema.get("properties", {})
        # Optional members end at some depth, so that a schema that refers to itself ends too.
        chosen = [name for name in properties if name in required or depth < _OPTIONAL_DEPTH]
        chosen += [name for name in schema.get("required", ()) if name not in properties]
        extra = schema.get("additionalProperties")
        fallback = extra if isinstance(extra, Mapping) else {"type": "string"}
        return {name: self.value(properties.get(name, fallback), name, depth + 1) for name in chosen}

    def _array(self, schema: Schema, name: str, depth: int) -> list[Any]:
        least, most = schema.get("minItems", 0), schema.get("maxItems", math.inf)
        wanted = max(least, min(most, self._dice.randint(2, 3) if depth < _OPTIONAL_DEPTH else 0))
        prefix = schema.get("prefixItems", [])[: int(min(most, 10**6))]
        items = [self.value(item, name, depth + 1) for item in prefix]
        tries = 0
        while len(items) < wanted and schema.get("items") is not False:
            item = self.value(schema.get("items", {"type": "string"}), name, depth + 1)
            tries += 1
            if schema.get("uniqueItems") and item in items:
                if tries > 50 and len(items) >= least:
                    break
                if tries > 1000:  # too few different values exist: the schema cannot be met
                    break
                continue
            items.append(item)
        return items

    def _integer(self, schema: Schema) -> int:
        low, high = self._bounds(schema, smallest_step=1)
        step = int(schema.get("multipleOf", 1)) or 1
        first, last = math.ceil(low / step), math.floor(high / step)
        return self._dice.randint(first, max(first, last)) * step

    def _number(self, schema: Schema) -> float:
        low, high = self._bounds(schema, smallest_step=1e-6)
        if step := schema.get("multipleOf"):
            first, last = math.ceil(low / step), math.floor(high / step)
            return float(self._dice.randint(first, max(first, last)) * step)
        value = self._dice.uniform(low, high)
        rounded = round(value, 2)
        return rounded if low <= rounded <= high else value

    @staticmethod
    def _bounds(schema: Schema, *, smallest_step: float) -> tuple[float, float]:
        low: float | None = schema.get("minimum")
        high: float | None = schema.get("maximum")
        if "exclusiveMinimum" in schema:
            low = max(low if low is not None else -math.inf, schema["exclusiveMinimum"] + smallest_step)
        if "exclusiveMaximum" in schema:
            high = min(high if high is not None else math.inf, schema["exclusiveMaximum"] - smallest_step)
        if low is None:
            return (1, 100) if high is None else (high - 100, high)
        return low, (low + 100 if high is None else high)

    def _string(self, schema: Schema, name: str) -> str:
        if pattern := schema.get("pattern"):
            return next((shape for shape in _PATTERN_SHAPES if re.search(pattern, shape)), "none")
        known = _FORMATS.get(schema.get("format", ""))
        text = self._dice.choice(known) if known else self._by_name(name)
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        while len(text) < least:
            text += f" {self._dice.choice(_PLAIN)}"
        return text if most is None else text[: max(most, 0)]

    def _by_name(self, name: str) -> str:
        """A value that suits the field's name: out of the question if it holds one, else invented."""
        lowered = name.lower()
        if "email" in lowered and (found := _EMAIL.search(self._question)):
            return found[0]
        if ("url" in lowered or "link" in lowered) and (found := _URL.search(self._question)):
            return found[0]
        values = next((values for word, values in _BY_NAME if word in lowered), _PLAIN)
        return self._dice.choice(values)


def _merged(one: Schema, other: Schema) -> Schema:
    """Both schemas at once, as far as a shallow look can tell: properties and required add up."""
    merged = {**one, **other}
    if "properties" in one and "properties" in other:
        merged["properties"] = {**one["properties"], **other["properties"]}
    if "required" in one and "required" in other:
        merged["required"] = list(dict.fromkeys((*one["required"], *other["required"])))
    return merged
