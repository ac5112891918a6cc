"""What the rail lists. A page is one line here, and appears once its route exists, to whom may see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from admin_api.pages.route import may_see
from admin_api.security import Principal


@dataclass(frozen=True, slots=True)
class Entry:
    """A page in the rail; `icon` is drawn by `icons.html`."""

    title: str
    path: str
    icon: str


@dataclass(frozen=True, slots=True)
class Section:
    """Entries under a heading."""

    title: str
    entries: Sequence[Entry]


SECTIONS: Sequence[Section] = (
    Section(
        "Operate",
        (
            Entry("Overview", "/overview", "orbit"),
            Entry("Jobs", "/jobs", "list"),
            Entry("Queues & workers", "/queues", "lanes"),
            Entry("Schedules", "/schedules", "calendar"),
            Entry("Usage", "/usage", "chart"),
            Entry("Alerts", "/alerts", "bell"),
        ),
    ),
    Section(
        "Configure",
        (
            Entry("Providers", "/providers", "planet"),
            Entry("Catalog", "/catalog", "book"),
            Entry("Assignments", "/assignments", "route"),
            Entry("Playground", "/playground", "spark"),
            Entry("Features", "/features", "cube"),
            Entry("Budgets", "/budgets", "coin"),
            Entry("Integrations", "/integrations", "plug"),
        ),
    ),
    Section(
        "Secure",
        (
            Entry("People", "/people", "people"),
            Entry("Tokens", "/tokens", "key"),
            Entry("Audit", "/audit", "shield"),
        ),
    ),
)


def sections(caller: Principal) -> list[Section]:
    """What the caller finds in the rail."""
    found = (
        Section(section.title, [entry for entry in section.entries if may_see(entry.path, caller)])
        for section in SECTIONS
    )
    return [section for section in found if section.entries]


def is_current(path: str, at: str) -> bool:
    """Whether the page `at` this address belongs to the entry with this path."""
    return at == path or at.startswith(f"{path}/")
