"""What compose.yaml says must be what the code understands: it is only tried on somebody's server."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import typer
from typer.main import get_command

from standalone.cli import app
from standalone.supervisor import STOP_MARGIN_SECONDS
from store.settings import Settings
from tests.deploy.files import command, compose, own_services, seconds, services, stages, variables
from workers.doorbells import LANES


def parsed(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """The subcommand and its parameters, as `orrery` itself reads them; nothing runs."""
    group = get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    context = group.make_context("orrery", list(arguments))
    name, subcommand, rest = group.resolve_command(context, arguments)
    assert subcommand is not None
    assert name is not None
    return name, subcommand.make_context(name, rest, parent=context).params


@pytest.mark.parametrize("name", own_services())
def test_each_command_is_one_that_orrery_reads(name: str) -> None:
    parsed(command(own_services()[name]))


def test_a_command_that_orrery_does_not_know_would_be_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        parsed(["worker", "--lane", "batch"])


def test_each_lane_has_one_worker_service() -> None:
    commands = [parsed(command(service)) for service in own_services().values()]
    served = Counter(
        lane for name, params in commands if name == "worker" for lane in params["lanes"].split(",")
    )
    assert served == Counter(LANES)


def test_each_orrery_variable_is_a_setting() -> None:
    given = {name for service in own_services().values() for name in service["environment"]}
    given |= {name for name in stages()[-1].environment() if name.startswith("ORRERY_")}
    assert given <= {f"ORRERY_{name.upper()}" for name in Settings.model_fields}
    assert {"ORRERY_DATABASE_URL", "ORRERY_REDIS_URL", "ORRERY_HOME"} <= given


def test_services_wait_for_services_that_can_tell() -> None:
    for name, service in services().items():
        for other, wait in service.get("depends_on", {}).items():
            awaited = services()[other]
            if wait["condition"] == "service_healthy":
                assert awaited["healthcheck"]["test"], f"{name} waits for the health of {other}"
            else:
                assert wait["condition"] == "service_completed_successfully"
                assert "restart" not in awaited, f"{name} waits for the end of {other}"


def test_all_that_need_the_database_wait_for_the_migration() -> None:
    for name, service in own_services().items():
        if name != "migrate":
            assert service["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
            assert service["restart"] == "unless-stopped"


def test_workers_are_not_killed_before_their_grace_time_is_over() -> None:
    grace = Settings.model_fields["grace_seconds"].default
    for name, service in own_services().items():
        if name.startswith("worker-"):
            assert seconds(service["stop_grace_period"]) >= grace + 2 * STOP_MARGIN_SECONDS


def test_volumes_are_declared_and_lie_where_the_images_write() -> None:
    mounts = {name: dict(v.split(":") for v in s.get("volumes", [])) for name, s in services().items()}
    assert {volume for mounted in mounts.values() for volume in mounted} == set(compose()["volumes"])
    assert mounts["postgres"] == {"postgres": "/var/lib/postgresql"}
    home = stages()[-1].environment()["ORRERY_HOME"]
    assert home == stages()[-1].one("VOLUME")
    assert all(mounts[name] == {"home": home} for name in own_services())


def test_only_the_api_is_reachable_and_only_from_this_host() -> None:
    published = {name: service["ports"] for name, service in services().items() if "ports" in service}
    _, api = parsed(command(services()["api"]))
    assert published == {"api": [f"127.0.0.1:8000:{api['port']}"]}
    assert api["host"] == "0.0.0.0"


def test_the_images_health_check_asks_the_api_and_is_off_elsewhere() -> None:
    _, api = parsed(command(services()["api"]))
    assert f"http://127.0.0.1:{api['port']}/healthz" in stages()[-1].one("HEALTHCHECK")
    for name, service in own_services().items():
        assert (service.get("healthcheck") == {"disable": True}) is (name != "api"), name


def test_passwords_have_no_default() -> None:
    needed = {
        name: operator
        for service in services().values()
        for text in (*service["environment"].values(), *service.get("command", []))
        for name, operator in variables(str(text)).items()
        if name.endswith("PASSWORD")
    }
    assert needed == {"POSTGRES_PASSWORD": "?", "VALKEY_PASSWORD": "?"}
