"""The configuration as a file: nothing gets lost, nothing wrong gets in, nothing happens halfway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import hypothesis
import psycopg
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from admin_api.features import FeatureBody
from routing.values import Capability
from standalone.cli import app
from standalone.config_document import DocumentError, Key, Kind, entry, read, written
from standalone.config_file import ConfigError, exported, imported, planned
from store.ids import new_id
from store.settings import Settings
from tests.conftest import database_named
from tests.rows import CANARY, Rows

NASTY = 'First line  \n\ttab: "yes"\n\n  # no comment\n{{ "x" }} \u2028 \x85 é 🎈 no\n'
ALL = frozenset(Kind)
SECTIONS = ("providers", "features", "integrations", "schedules", "budgets")


@pytest.fixture
def filled(rows: Rows, settings: Settings) -> Settings:
    """Two providers, three models, odd texts, dated prices, an assignment with a backup, an integration, a
    schedule with a chain, and budgets, two of which have nothing to tell them apart by."""
    openai = rows.provider(
        "openai",
        "https://api.openai.com/v1",
        settings={"no": [1, None, 2.5, "1e3"], "2026-01-01": {"a": True}},
    )
    local = rows.provider("local", "http://127.0.0.1:9/v1", key=None, description=NASTY, timeout_seconds=2.5)
    one = rows.model(openai, "gpt-6", prices=("0.00100", "0.002"), capabilities=["text", "vision"])
    two = rows.model(local, "org/llama:8b", prices=None, retires_at="2027-01-31")
    rows.model(local, "yes", prices=("0", "0"), is_active=False)
    rows.assign("cv_draft", one, two, system=NASTY, user="{{ profile }}\n", parameters={"temperature": 0})
    rows.change_feature("tarot_reading", description="on", max_queued=5)
    with psycopg.connect(settings.database()) as db:
        db.execute(
            "INSERT INTO model_prices (id, model_id, valid_from, input_price_per_1k) "
            "VALUES (gen_random_uuid(), %s, '2030-01-01 00:00+02', 0.5)",
            [one],
        )
        db.execute(
            "INSERT INTO system_integrations "
            "(id, name, type, sealed_credentials, credential_names, settings) "
            "VALUES (gen_random_uuid(), 'chat', 'slack', '\\x00', '{webhook_url}', %s)",
            ['{"channel": "#ops"}'],
        )
        db.execute(
            "INSERT INTO schedules "
            '(id, name, cron, timezone, feature_name, inputs_matrix, "then", use_batch_api, '
            "deadline_minutes) "
            "VALUES (gen_random_uuid(), 'Morning', '0 6 * * 1-5', 'Europe/Berlin', 'daily_zodiac_text', "
            "%s, %s, true, 90)",
            [
                '{"sign": ["aries", "leo"], "date": "{{ date }}"}',
                '[{"feature_name": "daily_zodiac_tts", "input_map": {"text": "result.text"}, '
                '"on_failure": "stop"}]',
            ],
        )
        for scope, scope_id, usd, tokens, action in (
            ("global", None, "10.50", None, "alert"),
            ("global", None, "20", None, "alert"),
            ("provider", str(openai), None, 1000, "defer"),
            ("feature", "cv_draft", "0.000001", 7, "block"),
            ("user", None, "1", None, "downgrade"),
        ):
            db.execute(
                "INSERT INTO budgets (id, scope, scope_id, period, limit_usd, limit_tokens, action) "
                "VALUES (%s, %s, %s, 'day', %s, %s, %s)",
                [new_id(), scope, scope_id, usd, tokens, action],
            )
    return settings


def test_what_is_exported_makes_an_empty_database_the_same(filled: Settings, template: str) -> None:
    text = written(exported(filled))
    with _another(filled, template) as empty:
        entries, kinds = read(text)
        assert kinds == ALL
        imported(empty, entries, frozenset(), planned(empty, entries, frozenset()))
        assert written(exported(empty)) == text
        assert planned(empty, entries, ALL).changes == []


def test_there_are_no_secrets_ids_or_stamps_in_it(filled: Settings) -> None:
    text = written(exported(filled))
    assert CANARY not in text
    assert CANARY[-4:] not in text
    for absent in ("api_key", "credential", "created", "updated", "provider_id", " id:"):
        assert absent not in text
    assert not any(_is_uuid(word) for word in text.replace(":", " ").split())
    document = yaml.safe_load(text)
    assert [provider["slug"] for provider in document["providers"]] == ["local", "openai"]
    cv = next(feature for feature in document["features"] if feature["name"] == "cv_draft")
    assert cv["assignment"]["targets"] == [{"model": "openai/gpt-6"}, {"model": "local/org/llama:8b"}]
    assert cv["assignment"]["prompt_template"]["system"] == NASTY


def test_an_unchanged_file_changes_nothing(filled: Settings) -> None:
    entries, _ = read(written(exported(filled)))
    before = _all_rows(filled)
    plan = planned(filled, entries, ALL)
    imported(filled, entries, ALL, plan)
    assert plan.changes == []
    assert _all_rows(filled) == before


def test_changes_are_shown_then_made_and_keys_stay(filled: Settings) -> None:
    document = yaml.safe_load(written(exported(filled)))
    document["providers"][1]["base_url"] = "https://proxy.example/v1"
    cv = next(feature for feature in document["features"] if feature["name"] == "cv_draft")
    cv["assignment"]["targets"].reverse()
    cv["assignment"]["prompt_template"]["user"] = "Anew: {{ job }}"
    keys = _sealed(filled)
    entries, kinds = read(yaml.dump(document))

    plan = planned(filled, entries, kinds)
    assert [line for change in plan.changes for line in change.lines()][:2] == [
        "~ provider openai",
        '    base_url: "https://api.openai.com/v1" -> "https://proxy.example/v1"',
    ]
    assert _provider_url(filled) == "https://api.openai.com/v1", "planning changes nothing"
    imported(filled, entries, kinds, plan)

    assert planned(filled, entries, kinds).changes == []
    assert _sealed(filled) == keys
    with psycopg.connect(filled.database()) as db:
        prompts = db.execute(
            "SELECT version, user_template FROM prompt_templates ORDER BY version"
        ).fetchall()
        assert prompts == [(1, "{{ profile }}\n"), (2, "Anew: {{ job }}")]
        acts = db.execute(
            "SELECT action, after FROM audit_log WHERE noun = 'configuration' AND actor = 'cli' ORDER BY id"
        ).fetchall()
    assert acts[-1] == ("import", {"added": 0, "changed": 2, "removed": 0})


def test_schedules_and_budgets_are_added_changed_and_removed(filled: Settings) -> None:
    document = yaml.safe_load(written(exported(filled)))
    [morning] = document["schedules"]
    assert morning["then"] == [{"feature_name": "daily_zodiac_tts", "input_map": {"text": "result.text"}}]
    assert [
        (budget["scope"], budget.get("scope_id"), budget.get("limit_usd")) for budget in document["budgets"]
    ] == [
        ("feature", "cv_draft", "0.000001"),
        ("global", None, "10.5"),
        ("global", None, "20"),
        ("provider", "openai", None),
        ("user", None, "1"),
    ]
    morning["cron"] = "@daily"
    document["schedules"].append(
        {
            "name": "Of a new feature",
            "cron": "0 7 * * *",
            "feature_name": "fresh",
            "inputs_matrix": {"a": [1]},
        }
    )
    document["features"].append({"name": "fresh", "capability": "text", "lane": "batch"})
    document["budgets"][2]["limit_usd"] = "30"
    document["budgets"][3] |= {"scope_id": "local"}
    del document["budgets"][0]
    entries, kinds = read(yaml.dump(document))
    plan = planned(filled, entries, kinds)
    assert [(change.key.name, change.before is None, change.after is None) for change in plan.changes] == [
        ("fresh", True, False),
        ("Morning", False, False),
        ("Of a new feature", True, False),
        ("global day alert 2", False, False),
        ("provider local day defer", True, False),
        ("feature cv_draft day block", False, True),
        ("provider openai day defer", False, True),
    ]
    imported(filled, entries, kinds, plan)
    assert exported(filled) == entries
    assert planned(filled, entries, kinds).changes == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "schedules: [{name: s, cron: 0 6 * *, feature_name: cv_draft}]",
            r"schedule s: .*\(cron\)",
        ),
        (
            "schedules: [{name: s, cron: 0 6 * * *, feature_name: gone}]",
            r"schedule s: There is no feature 'gone'. \(feature_name\)",
        ),
        (
            "schedules: [{name: s, cron: 0 6 * * *, feature_name: tarot_reading, use_batch_api: true, "
            "inputs_matrix: {cards: [[Sun]]}}]",
            r"schedule s: .*\(use_batch_api\)",
        ),
        ("budgets: [{scope: provider, scope_id: gone, limit_usd: 1}]", "There is no provider 'gone'"),
        ("budgets: [{scope: global}]", r"budget global month alert: A budget needs a limit"),
    ],
)
def test_what_the_api_would_refuse_is_refused(filled: Settings, text: str, named: str) -> None:
    before = _all_rows(filled)
    with pytest.raises(ConfigError, match=named):
        planned(filled, read(f"orrery: 1\n{text}\n")[0], frozenset())
    assert _all_rows(filled) == before


def test_entries_may_need_each_other_in_any_order(filled: Settings) -> None:
    """The feature moves to another model, and the one before loses the capability: both at once."""
    document = yaml.safe_load(written(exported(filled)))
    local, openai = document["providers"]
    openai["models"][0]["capabilities"] = ["vision"]
    cv = next(feature for feature in document["features"] if feature["name"] == "cv_draft")
    cv["assignment"]["targets"] = [{"model": "local/org/llama:8b"}]
    local["models"] = [model for model in local["models"] if model["model_id"] != "yes"]
    entries, kinds = read(yaml.dump(document))
    imported(filled, entries, kinds, planned(filled, entries, kinds))
    assert exported(filled) == entries


def test_nothing_is_removed_unless_asked(filled: Settings) -> None:
    entries, kinds = read("orrery: 1\nproviders: []\nintegrations: []\n")
    assert planned(filled, entries, frozenset()).changes == []
    with pytest.raises(ConfigError, match=r"model openai/gpt-6: .* in use by the assignments of: cv_draft"):
        planned(filled, entries, kinds)

    everything, _ = read("".join(["orrery: 1\n", *(f"{section}: []\n" for section in SECTIONS)]))
    imported(filled, everything, ALL, planned(filled, everything, ALL))
    assert exported(filled) == {}


def test_what_cannot_be_imported_leaves_everything_as_it_was(filled: Settings) -> None:
    before = _all_rows(filled)
    document = yaml.safe_load(written(exported(filled)))
    document["providers"][0]["name"] = "Changed"
    cv = next(feature for feature in document["features"] if feature["name"] == "cv_draft")
    cv["assignment"]["targets"][0]["model"] = "openai/gone"
    cv["assignment"]["prompt_template"]["user"] = "{{ broken"
    with pytest.raises(ConfigError, match="assignment cv_draft: There is no model 'openai/gone'"):
        planned(filled, read(yaml.dump(document))[0], frozenset())
    assert _all_rows(filled) == before


def test_a_change_meanwhile_is_not_overwritten(filled: Settings, rows: Rows) -> None:
    entries, _ = read("orrery: 1\nproviders: [{slug: p, name: P, type: openai, base_url: 'http://a/v1'}]\n")
    plan = planned(filled, entries, frozenset())
    rows.change_feature("tarot_reading", description="by somebody else")
    with pytest.raises(ConfigError, match="changed meanwhile"):
        imported(filled, entries, frozenset(), plan)
    assert plan.changes == planned(filled, entries, frozenset()).changes, "nothing was imported"


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)


@hypothesis.settings(deadline=None)
@hypothesis.example(description="\x85", schema={"a\r\n": ["\u2028", "\n \n", 1e16]})
@given(description=_TEXT, schema=st.dictionaries(_TEXT, _JSON, max_size=4))
def test_any_text_and_any_json_survive_the_file(description: str, schema: dict[str, Any]) -> None:
    body = FeatureBody(
        name="f", capability=Capability.TEXT, lane="batch", description=description, input_schema=schema
    )
    entries = {Key(Kind.FEATURE, "f"): entry(Kind.FEATURE, body)}
    assert read(written(entries))[0] == entries


P = "orrery: 1\nproviders: [{slug: p, name: P, type: openai, base_url: 'http://a/v1'"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "orrery: 1"),
        ("[]", "orrery: 1"),
        ("orrery: 2", "orrery: 1"),
        ("{", "no YAML"),
        ("!!python/object/apply:os.system [ls]", "no YAML"),
        ("orrery: 1\nmodels: []", "models: unknown"),
        ("orrery: 1\nproviders: {}", "providers: must be a list"),
        ("orrery: 1\nproviders: [1]", "providers[0]: must hold members"),
        (f"{P}, colour: red}}]", "providers[p].colour: Extra inputs"),
        (f"{P}, api_key: {CANARY}}}]", "providers[p].api_key: A file holds no secrets"),
        (f"{P}, name: Q}}]", "'name' stands there twice"),
        (
            f"{P}}}, {{slug: p, name: P, type: openai, base_url: 'http://a/v1'}}]",
            "providers[p]: stands there twice",
        ),
        (
            f"{P}, models: [{{model_id: m, name: M, price_unit: images}}]}}]",
            "models[m].price_unit: Prices are",
        ),
        (f"{P}, models: [{{model_id: m}}]}}]", "providers[p].models[m].name: Field required"),
        (
            f"{P}, models: [{{model_id: m, name: M, prices: [{{valid_from: 2026-01-01}}]}}]}}]",
            "providers[p].models[m].prices[0].valid_from",
        ),
        ("orrery: 1\nfeatures: [{name: f, capability: smell, lane: batch}]", "features[f].capability"),
        ("orrery: 1\nschedules: [{name: s, feature_name: f}]", "schedules[s].cron: Field required"),
        ("orrery: 1\nbudgets: [{scope: world, limit_usd: 1}]", "budgets[0].scope"),
        (
            "orrery: 1\nfeatures: [{name: f, capability: text, lane: batch, "
            "assignment: {targets: [{model: m}]}}]",
            "features[f].assignment.targets[0].model: must name a model",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_path(text: str, named: str) -> None:
    with pytest.raises(DocumentError) as refused:
        read(text)
    assert named in str(refused.value)
    assert CANARY not in str(refused.value)


def test_the_command_asks_before_it_changes(filled: Settings, tmp_path: Path) -> None:
    file = tmp_path / "orrery.yaml"
    assert _run(filled, "export", str(file)).exit_code == 0
    assert _run(filled, "import", str(file)).stdout == "Nothing differs.\n"
    file.write_text(file.read_text().replace("https://api.openai.com", "https://proxy.example"))

    shown = _run(filled, "import", str(file), "--dry-run")
    assert (shown.exit_code, "~ provider openai" in shown.stdout) == (0, True)
    refused = _run(filled, "import", str(file))
    assert (refused.exit_code, "--yes" in refused.stderr) == (1, True)
    assert _provider_url(filled) == "https://api.openai.com/v1"
    assert _run(filled, "import", str(file), "--yes").stdout.endswith("1 changes made.\n")
    assert _provider_url(filled) == "https://proxy.example/v1"
    assert _run(filled, "export", "-").stdout == file.read_text()


def _run(settings: Settings, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["config", *arguments], env=settings.environment())


@contextmanager
def _another(settings: Settings, template: str) -> Iterator[Settings]:
    """A second installation on the same server, empty but for what the migrations make."""
    name = f"{settings.database().rpartition('/')[2]}_b"
    with psycopg.connect(settings.database(), autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY".encode())
        url = database_named(settings.database(), name)
        yield settings.model_copy(update={"database_url": SecretStr(url)})
        db.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


_TABLES = (
    *(
        "ai_providers",
        "ai_models",
        "model_prices",
        "features",
        "feature_ai_assignments",
        "assignment_targets",
    ),
    *("prompt_templates", "system_integrations", "schedules", "budgets"),
)


def _all_rows(settings: Settings) -> list[Any]:
    with psycopg.connect(settings.database()) as db:
        return [
            db.execute(f"SELECT t::text FROM {table} t ORDER BY 1".encode()).fetchall() for table in _TABLES
        ]


def _sealed(settings: Settings) -> list[Any]:
    with psycopg.connect(settings.database()) as db:
        return db.execute(
            "SELECT id, sealed_key, key_version, key_last4 FROM ai_providers ORDER BY id"
        ).fetchall()


def _provider_url(settings: Settings) -> str:
    with psycopg.connect(settings.database()) as db:
        row = db.execute("SELECT base_url FROM ai_providers WHERE slug = 'openai'").fetchone()
    assert row is not None
    return str(row[0])


def _is_uuid(word: str) -> bool:
    try:
        UUID(word)
    except ValueError:
        return False
    return True
