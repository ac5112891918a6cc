"""How times, money, durations and numbers read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from admin_api.pages import formats
from admin_api.pages.formats import DASH


@pytest.mark.parametrize(
    ("dollars", "shown"),
    [
        (None, DASH),
        ("0", "$0"),
        ("0.00", "$0"),
        ("0.00123", "$0.00123"),
        ("0.000574123", "$0.000574"),
        ("0.0000001234", "$0.000000123"),
        ("0.5", "$0.50"),
        ("0.0999", "$0.0999"),
        ("1", "$1.00"),
        ("1234.5", "$1,234.50"),
        ("-0.002", "$-0.002"),
    ],
)
def test_money(dollars: str | None, shown: str) -> None:
    assert formats.money(dollars) == shown
    assert formats.money(None if dollars is None else Decimal(dollars)) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, DASH), (0.0041, "4 ms"), (1, "1 s"), (1.26, "1.3 s"), (59.94, "59.9 s"), (61, "1 min 1 s"),
     (7200, "2 h"), (7260, "2 h 1 min"), (90_000, "1 d 1 h")],
)  # fmt: skip
def test_durations(seconds: float | None, shown: str) -> None:
    assert formats.duration(seconds) == shown


@pytest.mark.parametrize(
    ("back", "shown"),
    [(0, "now"), (5, "5 s ago"), (130, "2 min ago"), (90_000, "1 d ago"), (-7300, "in 2 h")],
)
def test_times_tell_the_exact_one_too(back: float, shown: str) -> None:
    time = datetime.now(UTC) - timedelta(seconds=back)
    text = str(formats.ago(time))
    assert f">{shown}</time>" in text
    assert time.strftime("%Y-%m-%d %H:%M:%S UTC") in text
    assert formats.ago(None) == DASH


@pytest.mark.parametrize(
    ("amount", "shown"),
    [(None, DASH), (0, "0"), (999, "999"), (12_345, "12.3k"), (999_900, "1M"), (2.5, "2.5")],
)
def test_compact_counts(amount: float | None, shown: str) -> None:
    assert formats.compact(amount) == shown


@pytest.mark.parametrize(
    ("share", "shown"), [(None, DASH), (0, "0 %"), (0.1234, "12.3 %"), (0.9999, "99.9 %"), (1, "100 %")]
)
def test_no_share_is_rounded_to_all(share: float | None, shown: str) -> None:
    assert formats.percent(share) == shown


def test_ids_are_known_by_their_end() -> None:
    identifier = "01a20014-64af-763e-823e-5bdedc96b077"
    assert f'title="{identifier}"' in formats.short(identifier)
    assert "…dc96b077" in formats.short(identifier)
    assert formats.short("<b>") == "&lt;b&gt;"
