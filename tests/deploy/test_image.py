"""The image, the locks and the wheel: what a clean machine would get."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.deploy.files import LOCKS, ROOT, Pin, pins, project, stages

PACKAGES = project()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def test_the_image_is_pinned_and_runs_without_rights() -> None:
    image = stages()[-1]
    assert {stage.base for stage in stages()} == {"python:3.13-slim"}
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image.one("USER"))
    assert image.one("ENTRYPOINT") == '["orrery"]'
    assert image.environment()["PYTHONUNBUFFERED"] == "1"


def test_the_image_is_built_of_what_is_there_and_of_all_packages() -> None:
    sources = [source for arguments in stages()[0].all("COPY") for source in arguments.split()[:-1]]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert set(PACKAGES) <= set(sources)


def test_everything_is_installed_by_hash_and_nothing_else() -> None:
    installs = [step for run in stages()[0].all("RUN") for step in run.split(" && ") if " install " in step]
    assert any("--require-hashes -r requirements-server.txt" in step for step in installs)
    for step in installs:
        assert "--require-hashes" in step or "--no-deps --no-index" in step, step


def test_build_tools_are_taken_out_and_nothing_that_the_product_needs() -> None:
    lock = pins("requirements-server.txt")
    steps = [step for run in stages()[0].all("RUN") for step in run.split(" && ")]
    [removed] = [step.partition("--yes")[2] for step in steps if " uninstall " in step]
    assert set(removed.split()) == {name for name in lock if not _is_needed(name, lock)}


def _is_needed(name: str, lock: dict[str, Pin]) -> bool:
    """Whether the product wants the package, or another one that the product wants."""
    return any(
        one.startswith("orrery (pyproject.toml)") or (one in lock and _is_needed(one, lock))
        for one in lock[name].wanted_by
    )


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_are_hashed_complete_and_name_no_index(lock: str) -> None:
    packages = pins(lock)
    assert [name for name, pin in packages.items() if not pin.hashes] == []
    declared = {_name(requirement) for requirement in project()["project"]["dependencies"]}
    assert declared <= set(packages)
    text = (ROOT / lock).read_text()
    assert [word for word in ("://", "--index", "--extra-index", "--find-links") if word in text] == []


def test_locks_agree_on_versions() -> None:
    reference = pins("requirements.txt")
    for lock in LOCKS[1:]:
        other = pins(lock)
        shared = set(reference) & set(other)
        assert [name for name in shared if reference[name].version != other[name].version] == []
    assert set(reference) <= set(pins("requirements-dev.txt"))


def test_the_image_lacks_the_engines_and_what_only_they_need() -> None:
    reference, server = pins("requirements.txt"), pins("requirements-server.txt")
    engines = {_name(wheel) for wheel in project()["project"]["optional-dependencies"]["standalone"]}
    left_out = set(reference) - set(server)
    assert engines <= left_out
    assert set(server) <= set(reference)
    assert [name for name in left_out - engines if not set(reference[name].wanted_by) <= left_out] == []


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None
    return found[0].lower()


def test_the_wheel_holds_the_packages_with_their_data_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    [wheel] = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    on_disk = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == on_disk
    assert {path.rsplit(".", 1)[1] for path in held} >= {"py", "sql", "json", "typed"}
