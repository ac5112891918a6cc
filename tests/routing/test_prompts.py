from __future__ import annotations

import time
from typing import Any

import pytest

from routing.errors import ConfigurationError, InputRejected
from routing.prompts import check, compose, render
from routing.values import Call, Capability
from tests.routing import factories

# Each tries to reach out of the sandbox, or to spend far more time or memory than a prompt may.
ATTACKS = {
    "dunder": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "dunder by item": "{{ ''['__class__'] }}",
    "dunder by filter": "{{ '' | attr('__class__') }}",
    "dunder by map": "{{ [''] | map(attribute='__class__') | list }}",
    "format string": "{{ '{0.__class__}'.format('') }}",
    "format filter": "{{ '%1000000000d' | format(1) }}",
    "percent": "{{ '%1000000000d' % 1 }}",
    "globals": "{{ cycler.__init__.__globals__ }}",
    "self": "{{ self._TemplateReference__context }}",
    "meter": "{{ context }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "lipsum": "{{ lipsum(n=100000) }}",
    "macro recursion": "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "loop recursion": "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "captured block": "{% set x %}{% for i in range(9) %}{{ i }}{% endfor %}{% endset %}{{ x }}",
    "repetition": "{{ 'x' * 10**9 }}",
    "list repetition": "{{ [0] * 10**9 }}",
    "power": "{{ 9**9**9 }}",
    "squares": "{% set n = 10 %}" + "{% set n = n*n %}" * 40 + "{{ n }}",
    "doubling by ~": "{% set x = 'xx' %}" + "{% set x = x ~ x %}" * 60 + "{{ x }}",
    "doubling by +": "{% set x = 'xx' %}" + "{% set x = x + x %}" * 60 + "{{ x }}",
    "doubling by join": "{% set x = 'xx' %}" + "{% set x = [x, x] | join %}" * 60 + "{{ x }}",
    "doubling by replace": "{% set x = 'xx' %}" + "{% set x = x | replace('x', x) %}" * 12 + "{{ x }}",
    "doubling lists": "{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x }}",
    "doubling by map default": "{% set x = [1] %}"
    + "{% set x = ['a', 'b'] | map(attribute='q', default=x) | list %}" * 60
    + "{{ x }}",
    "comparing doubled lists": "{% set x = [1] %}{% set y = [1] %}"
    + "{% set x = [x, x] %}{% set y = [y, y] %}" * 22
    + "{{ x == y }}",
    "comparing doubled defaults": "{% set x = [1] %}{% set y = [1] %}"
    + "{% set x = ['a', 'b'] | map(attribute='q', default=x) | list %}" * 22
    + "{% set y = ['a', 'b'] | map(attribute='q', default=y) | list %}" * 22
    + "{{ x == y }}",
    "doubling by sum": "{{ [[1], [2]] | sum(start=[]) }}",
    "huge range": "{% for i in range(10**9) %}{% endfor %}",
    "nested loops": "{% for a in range(999) %}{% for b in range(999) %}{% endfor %}{% endfor %}",
    "silent work": "{% for a in range(999) %}{% set y = big | upper | lower | title %}{% endfor %}"
    "{% for a in range(999) %}{% set y = big | upper | lower | title %}{% endfor %}",
    "quadratic select": "{{ many | select('in', many | reverse | list) | list | length }}",
    "long output": "{% for a in range(999) %}{{ big }}{% endfor %}",
    "wide indent": "{{ 'a' | indent(10**9) | length }}{{ missing }}",
    "wide center": "{{ 'a' | center(10**9) }}",
    "just": "{{ 'a'.ljust(10**9) }}",
    "expandtabs": "{{ '\t'.expandtabs(10**9) }}",
    "round": "{{ 2.5 | round(10**9, 'ceil') }}",
    "str.join": "{{ big.join(many) }}",
    "mutation": "{{ many.append(1) }}",
    "spread": "{{ [1] | join(*many) }}",
    "deep nesting": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep lists": "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "generator address": "{{ many | map('string') }}",
    "function address": "{{ range }}",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_attacks_are_refused_and_cost_little(attack: str) -> None:
    variables = {"big": "y" * 100_000, "many": [f"{n}" for n in range(20_000)]}
    before = time.thread_time()
    with pytest.raises(ConfigurationError):
        render(attack, variables)
    assert time.thread_time() - before < 5  # CPU of this thread, not the clock: a bound, not a benchmark


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
