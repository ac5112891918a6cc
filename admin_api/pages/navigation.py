"""What the rail lists. A page is one line here, and appears once its route exists, to whom may see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from admin_api.pages.route import may_see
from admin_api.security import Principal


@dataclass(frozen=True, slots=True)
class Entry:
    """A page in the rail; `icon` is drawn by `icons.html`. `others` are paths of pages that it leads to."""

    title: str
    path: str
    icon: str
    others: Sequence[str] = ()

    def holds(self, at: str) -> bool:
        """Whether the page `at` this address belongs here."""
        return any(is_current(path, at) for path in (self.path, *self.others))


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
            Entry("Jobs", "/jobs", "list", ("/groups",)),
            Entry("Queues & workers", "/queues", "lanes"),
            Entry("Schedules", "/schedules", "calendar", ("/forecast", "/batches")),
            Entry("Usage", "/usage", "chart"),
            Entry("Alerts", "/alerts", "bell"),
        ),
    ),
    Section(
        "Configure",
        (
            Entry("Providers", "/providers", "planet", ("/models",)),
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
            Entry("Audit", "/audit", "shield", ("/retention",)),
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
    """Whether the page `at` this address is the one with this path, or lies below it."""
    return at == path or at.startswith(f"{path}/")
