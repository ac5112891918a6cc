"""The `orrery` command. Each command imports what it runs: a worker carries no web framework."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from pydantic import ValidationError
from rich.console import Console

from standalone.config_commands import config_app
from standalone.errors import CommandError
from standalone.key_commands import import_env, keys_app
from standalone.logs import configure
from standalone.machine import attached, installation, settings_for
from standalone.terminal import Home, fail, steps
from store.settings import Settings, SettingsError
from store.vault import VaultError

if TYPE_CHECKING:
    from standalone.up import Running

app = typer.Typer(
    help="Orrery: self-hosted AI jobs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they print local variables
    add_completion=False,
)
admin_app = typer.Typer(help="People.", no_args_is_help=True)
token_app = typer.Typer(help="Tokens of applications and of operators.", no_args_is_help=True)
app.add_typer(admin_app, name="admin")
app.add_typer(token_app, name="token")
app.add_typer(keys_app, name="keys")
app.add_typer(config_app, name="config")
app.command("import-env")(import_env)

Parent = Annotated[int | None, typer.Option("--parent", hidden=True, help="End when this process ends.")]

_LANES = "interactive,standard,batch"


def main() -> None:
    """Entry point: errors that have a fix are one sentence on stderr and exit status 1."""
    try:
        app()
    except (CommandError, SettingsError, VaultError) as error:
        fail(str(error))
    except ValidationError as error:
        fail("; ".join(f"ORRERY_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()))
    except Exception as error:
        fail(_explained(error))


@app.command()
def demo(
    home: Home = None,
    serve: Annotated[bool, typer.Option("--serve/--exit", help="Keep running afterwards.")] = False,
) -> None:
    """Show the main job, offline: jobs, a hot swap, a provider failure."""
    from standalone.demo import run_demo

    settings = settings_for(home)
    if home is None:
        settings = settings.model_copy(update={"home": settings.home.with_name(f"{settings.home.name}-demo")})
    configure("ERROR")
    _end_on_sigterm()
    with steps("Orrery demo") as on_step:
        held = run_demo(settings, on_step=on_step, serve=serve)
    raise typer.Exit(0 if held else 1)


@app.command()
def up(
    home: Home = None,
    host: Annotated[str, typer.Option(help="Address the API listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port the API listens on.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes, beside the interactive one.")] = 2,
    threads: Annotated[int, typer.Option(min=1, help="Jobs at a time per worker process.")] = 8,
    sandbox: Annotated[bool, typer.Option(help="Add sandbox providers, assign every feature.")] = False,
) -> None:
    """Run everything on this machine: engines, API, workers."""
    from standalone.up import FIRST_ADMIN, Layout, serve_until_signalled
    from standalone.up import up as bring_up

    settings = settings_for(home)
    configure(settings.log_level)
    layout = Layout(host=host, port=port, workers=workers, threads=threads, sandbox=sandbox)
    _end_on_sigterm()

    def tell(password: str) -> None:
        print(f"First super admin: {FIRST_ADMIN}   password: {password}   (shown this once)", flush=True)

    with (
        steps("Starting Orrery") as on_step,
        bring_up(settings, layout, on_step=on_step, on_first_password=tell) as running,
    ):
        on_step("")
        serve_until_signalled(running, lambda: _greet(running))


@app.command()
def api(
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option()] = 8000,
    parent: Parent = None,
) -> None:
    """Run the admin API alone."""
    from standalone.api_server import serve

    settings = _part(parent)
    serve(settings, host=host, port=port)


@app.command()
def worker(
    lanes: Annotated[str, typer.Option(help="Lanes to serve, with commas.")] = _LANES,
    threads: Annotated[int, typer.Option(min=1, help="Jobs at a time per process.")] = 8,
    parent: Parent = None,
) -> None:
    """Run jobs. `interactive` beside other lanes gets a process of its own."""
    wanted = [lane for lane in lanes.split(",") if lane]
    unknown = set(wanted) - set(_LANES.split(","))
    if unknown or not wanted:
        fail(f"--lanes must name some of {_LANES}, not {lanes!r}.")
    settings = _part(parent)
    if "interactive" in wanted and len(wanted) > 1:
        from standalone.supervisor import supervise

        others = ",".join(lane for lane in wanted if lane != "interactive")
        supervise(
            [["worker", "--lanes", share, "--threads", str(threads)] for share in ("interactive", others)],
            environment=settings.environment(),
            grace_seconds=settings.grace_seconds,
        )
    else:
        from workers.run import serve

        serve(settings, lanes=wanted, threads=threads)


@app.command()
def scheduler(parent: Parent = None) -> None:
    """Fire schedules and look after batches. Any number may run; each instant fires once."""
    from workers.scheduling import serve

    serve(_part(parent))


@app.command("migrate")
def migrate_command(home: Home = None) -> None:
    """Bring the database to the newest revision; make a keyring where there is none."""
    from standalone.schema import migrate

    settings = settings_for(home)
    configure(settings.log_level)
    _end_on_sigterm()
    with steps("Migrating") as on_step, installation(settings, on_step=on_step) as reached:
        typer.echo(f"The database is at revision {migrate(reached)}.")


@app.command("sandbox")
def sandbox_command(
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 0,
    parent: Parent = None,
) -> None:
    """Run the sandbox providers alone."""
    from standalone.sandbox import serve

    configure(_settings(parent).log_level)
    announce: Callable[[str], None] = lambda _: None  # noqa: E731
    serve(host, port, on_ready=announce if parent else lambda url: typer.echo(f"Sandbox at {url}"))


@app.command()
def env(home: Home = None) -> None:
    """Print the running engines' URLs as shell exports."""
    settings = attached(settings_for(home))
    for name in ("ORRERY_DATABASE_URL", "ORRERY_REDIS_URL", "ORRERY_HOME"):
        print(f"export {name}={shlex.quote(settings.environment()[name])}")


@app.command()
def status(
    home: Home = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show what runs: engines, versions, queues."""
    from standalone.status import describe, render

    described = describe(settings_for(home))
    if as_json:
        print(json.dumps(described, indent=2))
    else:
        render(described, Console())


@app.command()
def stop(home: Home = None) -> None:
    """Stop the embedded engines."""
    from standalone import engines

    settings = settings_for(home)
    stopped = engines.stop(settings.home)
    typer.echo(f"The engines under {settings.home} {'have stopped' if stopped else 'were not running'}.")


@app.command()
def enqueue(
    feature: str,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="KEY=VALUE; a VALUE that is JSON is taken as such.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the job to end and print it.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 60.0,
    home: Home = None,
) -> None:
    """Enqueue one job and print its id."""
    from workers.client import Client

    client = Client(attached(settings_for(home)))
    try:
        job_id = client.enqueue(feature, _input(inputs or []))
        if not wait:
            print(job_id)
            return
        job = client.result(job_id, timeout=timeout)
        print(json.dumps(_described(job), indent=2, ensure_ascii=False))
        raise typer.Exit(0 if job.state == "succeeded" else 1)
    finally:
        client.close()


@app.command()
def job(job_id: UUID, home: Home = None) -> None:
    """Print a job as JSON."""
    from workers.client import Client

    client = Client(attached(settings_for(home)))
    try:
        found = client.job(job_id)
    finally:
        client.close()
    if found is None:
        fail(f"There is no job {job_id}.")
    print(json.dumps(_described(found), indent=2, ensure_ascii=False))


@admin_app.command("create")
def admin_create(
    email: Annotated[str, typer.Option()],
    role: Annotated[str, typer.Option(help="super_admin or admin")],
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read it as a line.")] = False,
    home: Home = None,
) -> None:
    """Add a person; asks for the password."""
    from standalone import people

    settings = attached(settings_for(home))
    if password_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    people.create_admin(settings, email=email, role=role, password=password)
    typer.echo(f"{email.lower()} is {role} now.")


@admin_app.command("reset-mfa")
def admin_reset_mfa(email: Annotated[str, typer.Option()], home: Home = None) -> None:
    """Remove a person's second factor, say of a lost phone; ends their sessions."""
    from standalone import people

    people.reset_second_factor(attached(settings_for(home)), email=email)
    typer.echo(f"{email.lower()} has no second factor now, and must log in again.")


@token_app.command("create")
def token_create(
    name: Annotated[str, typer.Option()],
    owner: Annotated[str | None, typer.Option(help="E-mail of the admin it acts for.")] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help="Repeatable; by default all of an application.")
    ] = None,
    home: Home = None,
) -> None:
    """Make an application token and print it, once."""
    from standalone import people

    print(people.create_token(attached(settings_for(home)), name=name, owner=owner, scopes=scope or []))


@token_app.command("list")
def token_list(home: Home = None) -> None:
    """List application tokens."""
    from standalone import people

    for line in people.list_tokens(attached(settings_for(home))):
        owner = line.owner or "-"
        print(f"{line.id}  {line.state:8}  …{line.last4}  {line.name}  {owner}  {','.join(line.scopes)}")


@token_app.command("revoke")
def token_revoke(token_id: UUID, home: Home = None) -> None:
    """Revoke an application token."""
    from standalone import people

    people.revoke_token(attached(settings_for(home)), token_id)
    typer.echo(f"Token {token_id} is revoked.")


@token_app.command("admin")
def token_admin(
    email: Annotated[str, typer.Option()],
    mfa: Annotated[bool, typer.Option(help="With second factor: needed for writes.")] = False,
    home: Home = None,
) -> None:
    """Print an admin's access token, valid for 60 minutes."""
    from standalone import people

    print(people.admin_jwt(attached(settings_for(home)), email=email, mfa=mfa))


def _settings(parent: int | None) -> Settings:
    if parent is not None:
        from workers.alone import die_with_parent

        die_with_parent(parent)
    return Settings()


def _part(parent: int | None) -> Settings:
    """Settings of a part, which needs both URLs (or engines that run under the home already)."""
    settings = _settings(parent)
    configure(settings.log_level)
    return attached(settings)


def _end_on_sigterm() -> None:
    """While things start, SIGTERM ends them as Ctrl-C would: orderly."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def _greet(running: Running) -> None:
    print(f"Orrery is up at {running.api_url}   (API description: {running.api_url}/docs)")
    if running.sandbox_url:
        print(f"Sandbox providers at {running.sandbox_url}")
    print("Ctrl-C stops it.", flush=True)


def _input(pairs: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            fail(f"--input {pair!r} must be KEY=VALUE.")
        try:
            values[key] = json.loads(value)
        except ValueError:
            values[key] = value
        if isinstance(values[key], (int, float)) and not isinstance(values[key], bool):
            values[key] = value  # `--input text=42` means the text; numbers come inside JSON objects
    return values


def _described(job: Any) -> dict[str, Any]:
    from standalone.status import job_as_json

    return job_as_json(job)


def _explained(error: Exception) -> str:
    """A sentence for what a user can mend; anything else keeps its traceback."""
    import psycopg
    from sqlalchemy.exc import OperationalError

    from routing.errors import RoutingError
    from standalone.api_client import ApiError
    from store.migrations import MigrationError
    from workers.artifacts import ArtifactError

    if isinstance(error, (psycopg.OperationalError, OperationalError)):
        return f"PostgreSQL does not answer: {str(error).splitlines()[0]}"
    if isinstance(error, (RoutingError, ApiError, ArtifactError, MigrationError, TimeoutError, ValueError)):
        return str(error)
    raise error


if __name__ == "__main__":
    main()
