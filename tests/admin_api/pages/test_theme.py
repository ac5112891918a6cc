"""The theme's colours can be read: WCAG's contrast, computed for each on each ground it may lie on.

Its type is of one scale.
"""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

Colour = tuple[float, float, float]

STATIC = files("admin_api.pages") / "static"
CSS = (STATIC / "orrery.css").read_text()
TOKENS = dict(re.findall(r"--([\w-]+): ([^;]+);", CSS))
TEXTS = ("text", "muted", "cyan", "violet", "pink", "green", "amber", "red")
READABLE, VISIBLE = 4.5, 3.0
SIZES = {"1rem", "inherit", *(f"var(--{name})" for name in ("small", "medium", "large", "title", "figure"))}
ODD_SIZES = {"15px", "18px", "25px", "3.6rem"}  # the root by the width of the screen, and what went wrong


def _hex(text: str) -> Colour:
    digits = text.lstrip("#")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    red, green, blue = (int(digits[at : at + 2], 16) for at in (0, 2, 4))
    return red, green, blue


def _over(text: str, ground: Colour) -> Colour:
    """A colour, perhaps translucent, on a ground."""
    if text.startswith("#"):
        return _hex(text)
    red, green, blue, alpha = map(float, re.findall(r"[\d.]+", text))
    over = (red, green, blue)
    mixed = [alpha * over[at] + (1 - alpha) * ground[at] for at in range(3)]
    return mixed[0], mixed[1], mixed[2]


def _luminance(colour: Colour) -> float:
    linear = [
        part / 255 / 12.92 if part / 255 <= 0.04045 else ((part / 255 + 0.055) / 1.055) ** 2.4
        for part in colour
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: Colour, other: Colour) -> float:
    """WCAG 2.2's ratio, 1 to 21."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


GROUND = _hex(TOKENS["ground"])
PANEL = _over(TOKENS["panel"], GROUND)
SOLID = _hex(TOKENS["panel-solid"])
RAISED = _over(TOKENS["raised"], PANEL)
GROUNDS = {"ground": GROUND, "panel": PANEL, "solid panel": SOLID, "raised": RAISED}
# The nebula, where it is brightest: violet over the ground.
GROUNDS["nebula"] = _over(max(re.findall(r"rgba\(150, 110, 255, [\d.]+\)", CSS)), GROUND)


def test_the_formula_is_wcags() -> None:
    assert contrast(_hex("#000"), _hex("#fff")) == pytest.approx(21)
    assert contrast(_hex("#777777"), _hex("#ffffff")) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("name", TEXTS)
def test_every_colour_of_text_is_readable(name: str, ground: str) -> None:
    assert contrast(_hex(TOKENS[name]), GROUNDS[ground]) >= READABLE


def test_every_other_colour_of_text_is_readable_too() -> None:
    """Dark text lies on something bright that its own rule names."""
    rules = re.findall(r"\{([^{}]*[^-]color: (#[0-9a-f]{3,8})\b[^{}]*)\}", CSS)
    assert rules
    for rule, colour in rules:
        own = re.search(r"background: ([^;]+)", rule)
        grounds = list(GROUNDS.values())
        if _luminance(_hex(colour)) < 0.1:
            assert own is not None, rule
            named = re.findall(r"#[0-9a-f]{6}", re.sub(r"var\(--([\w-]+)\)", lambda n: TOKENS[n[1]], own[1]))
            grounds = [_hex(stop) for stop in named]
            assert grounds, rule
        assert min(contrast(_hex(colour), ground) for ground in grounds) >= READABLE, rule


@pytest.mark.parametrize("ground", GROUNDS)
def test_the_edges_of_controls_are_visible(ground: str) -> None:
    edge = _over(TOKENS["line-strong"], GROUNDS[ground])
    assert contrast(edge, GROUNDS[ground]) >= VISIBLE
    assert contrast(_hex(TOKENS["cyan"]), GROUNDS[ground]) >= VISIBLE, "the ring of what has the focus"


@pytest.mark.parametrize("name", sorted(each.name for each in STATIC.iterdir() if each.name.endswith(".css")))
def test_type_is_of_one_scale(name: str) -> None:
    css = (STATIC / name).read_text()
    assert set(re.findall(r"font-size: *([^;}]+?) *[;}]", css)) <= SIZES | ODD_SIZES
    assert set(re.findall(r"font-weight: *([^;}]+?) *[;}]", css)) <= {"400", "600", "inherit"}
