"""No action without a walk: what a button sends is sent by a real browser in some test of this folder."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from tests import ui
from tests.ui.conftest import page_routes


def _clicked() -> Iterator[str]:
    for module in pkgutil.iter_modules(ui.__path__, f"{ui.__name__}."):
        for member in vars(importlib.import_module(module.name)).values():
            for mark in getattr(member, "pytestmark", []):
                if mark.name == "clicks":
                    yield from mark.args


def test_every_action_is_walked() -> None:
    actions = {route.path for route in page_routes() if "POST" in (route.methods or ())}

    assert actions - set(_clicked()) == set(), "actions that no walk sends"
    assert set(_clicked()) - actions == set(), "walks of actions that are gone"
