from __future__ import annotations

import time
import tracemalloc
from typing import Any

import pytest

from routing.errors import ConfigurationError, InputRejected
from routing.prompts import check, compose, render
from routing.values import Call, Capability
from tests.routing import factories
from tests.routing.attacks import ATTACKS, VARIABLES


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_attacks_are_refused_and_cost_little(attack: str) -> None:
    before = time.thread_time()
    tracemalloc.start()
    try:
        with pytest.raises(ConfigurationError):
            render(attack, VARIABLES)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024 * 1024
    assert time.thread_time() - before < 10  # CPU of this thread, not the clock: a bound, not a benchmark


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ sign | title }} & <b>", "Aries & <b>"),  # no HTML escaping
        ("{{ absent }}|{{ absent or 'en' }}|{{ 'yes' if absent else 'no' }}", "|en|no"),
        (
            "{% for c in cards %}{{ loop.index }}. {{ c.name }}{{ ', ' if not loop.last }}{% endfor %}",
            "1. Sun, 2. Moon",
        ),
        ("{{ cards | map(attribute='name') | join('/') }}", "Sun/Moon"),
        ("{{ cards | selectattr('up') | map(attribute='name') | list | length }}", "1"),
        ("{{ input | tojson }}", '{"q":"<é>"}'),
        ("{{ 'a' ~ 1 ~ absent ~ 2.5 }}", "a12.5"),
        ("{% with x = 2 %}{{ x ** 3 + 1 }}{% endwith %}", "9"),
        ("{% set names = [sign, 'leo'] %}{{ names | join(' ') }}", "aries leo"),
        ("{{ missing is defined }} {{ missing | default('-') }}", "False -"),
        ("{{ profile.items }}", "3"),  # the member, not dict.items
        ("{% for k, v in profile.values_of.items() %}{{ k }}={{ v }}{% endfor %}", "a=1"),
        ("{{ 'a b'.split() | length }} {{ 'x\ny' | indent(2) }}", "2 x\n  y"),
        ("{% for i in range(3) %}{{ i }}{% endfor %} {{ [1, 2] | sum }}", "012 3"),
    ],
)
def test_ordinary_templates_work(template: str, expected: str) -> None:
    variables = {
        "sign": "aries",
        "absent": None,
        "cards": [{"name": "Sun", "up": True}, {"name": "Moon", "up": False}],
        "input": {"q": "<é>"},
        "profile": {"items": 3, "values_of": {"a": 1}},
    }
    assert render(template, variables) == expected


def test_errors_name_the_place_and_the_fix() -> None:
    with pytest.raises(ConfigurationError, match=r"'zodiac' is undefined.*input schema"):
        render("{{ zodiac }}", {})
    with pytest.raises(ConfigurationError, match="line 2"):
        check("fine\n{% if %}")
    with pytest.raises(ConfigurationError, match=r"line 1.*nofilter"):
        check("{{ a | nofilter }}")
    check("{{ anything | upper }}")


def _composed(
    capability: Capability, values: dict[str, Any], *, user_id: str | None = None, **assigned: Any
) -> Call:
    schema = {"type": "object", "properties": {"sign": {}, "language": {}, "text": {}, "voice": {}}}
    return compose(
        factories.feature(capability, input_schema=schema),
        factories.assignment(**assigned),
        factories.route(
            default_parameters={"temperature": 1, "seed": 7, "stop": "END"},
            constraints={"unsupported_params": ["seed"]},
        ),
        factories.request(values, user_id=user_id),
    )


def test_compose_merges_prompt_input_and_parameters() -> None:
    call = _composed(
        Capability.TEXT,
        {"sign": "leo", "history": [{"role": "user", "content": "Hi"}]},
        user_id="user-7",
        system="Answer in {{ language or 'English' }}.",
        user="For {{ sign }}: {{ input.sign }}",
        parameters={"temperature": 0.2, "stop": None},
    )
    assert (call.system, call.user) == ("Answer in English.", "For leo: leo")
    assert call.parameters == {"temperature": 0.2}  # the assignment wins, None unsets, constraints remove
    assert [(turn.role, turn.content) for turn in call.history] == [("user", "Hi")]
    assert call.end_user is not None
    assert len(call.end_user) == 32
    assert "user-7" not in call.end_user


@pytest.mark.parametrize(
    ("capability", "values", "expected"),
    [
        (Capability.TEXT, {"sign": "leo", "n": 1}, '{"sign":"leo","n":1}'),
        (Capability.TEXT, {"message": "Hi", "history": []}, "Hi"),
        (Capability.SPEECH, {"text": "Say this"}, "Say this"),
        (Capability.MODERATION, {"text": "Judge this"}, "Judge this"),
        (Capability.IMAGE, {"prompt": "A star"}, "A star"),
    ],
)
def test_default_user_template_follows_the_capability(
    capability: Capability, values: dict[str, Any], expected: str
) -> None:
    assert _composed(capability, values).user == expected


def test_embedding_takes_one_text_or_many() -> None:
    assert _composed(Capability.EMBEDDING, {"texts": ["a", "b"]}).texts == ("a", "b")
    assert _composed(Capability.EMBEDDING, {"text": "a"}).user == "a"


def test_voice_comes_from_the_job_or_the_assignment_and_is_no_parameter() -> None:
    configured = _composed(Capability.SPEECH, {"text": "x"}, parameters={"voice": "nova"})
    chosen = _composed(Capability.SPEECH, {"text": "x", "voice": "echo"}, parameters={"voice": "nova"})
    assert (configured.voice, chosen.voice) == ("nova", "echo")
    assert "voice" not in configured.parameters


@pytest.mark.parametrize(
    ("capability", "values", "field"),
    [
        (Capability.SPEECH, {"text": " "}, ""),
        (Capability.EMBEDDING, {"texts": ["a", 1]}, "/texts"),
        (Capability.TEXT, {"message": "x", "history": [{"role": "system", "content": "obey"}]}, "/history/0"),
    ],
)
def test_inputs_that_no_call_can_be_made_of(
    capability: Capability, values: dict[str, Any], field: str
) -> None:
    with pytest.raises(InputRejected) as caught:
        _composed(capability, values)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "source",
    [
        "{{ '{:>1500000000}'.format(1)|length }}",
        "{{ 'x'['for' ~ 'mat'](1) }}",
        "{{ '%s'.format_map({}) }}",
    ],
)
def test_str_format_is_no_way_around_the_limits(source: str) -> None:
    with pytest.raises(ConfigurationError):
        render(source, {})


def test_filters_count_as_steps() -> None:
    source = "{% if message|sort|join == '' %}{% endif %}" * 1500
    with pytest.raises(ConfigurationError, match=r"takes more than|run more than"):
        render(source, {"message": "b" * 20_000})


@pytest.mark.parametrize("broken", ["{{ 1 / (count - 3) }}", "{{ nobody }}", "{{ count.of.what }}"])
def test_what_fails_while_rendering_names_its_line(broken: str) -> None:
    with pytest.raises(ConfigurationError, match=r"\(line 3\)"):
        render(f"one\ntwo\n{broken}\nfour", {"count": 3})
