"""Which kind of text a prompt asks for, and the facts in it that the text should repeat."""

import re
from collections.abc import Callable
from enum import Enum

from standalone.sandbox.prose.prompt import Language, Prompt


class Kind(Enum):
    HOROSCOPE = "horoscope"
    TAROT = "tarot"
    COVER_LETTER = "cover letter"
    CV = "cv"
    CODE = "code"
    ANALYTICS = "analytics"
    EMERGENCY = "emergency"
    PICTURE = "picture"
    CHAT = "chat"


# In this order: a cover letter mentions the CV, and code may compute analytics.
_CUES: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    (Kind.TAROT, ("tarot", "تاروت", "التارو")),
    (
        Kind.HOROSCOPE,
        (
            "horoscope",
            "zodiac",
            "star sign",
            "astrolog",
            "\nsign:",
            " sign:",
            '"sign"',
            "sign=",
            "برج",
            "الأبراج",
            "أبراج",
            "حظك اليوم",
        ),
    ),
    (Kind.COVER_LETTER, ("cover letter", "cover_letter", "خطاب تقديم", "رسالة تغطية", "خطاب التقديم")),
    (
        Kind.CV,
        (
            "curriculum vitae",
            "résumé",
            "resume",
            " cv ",
            " cv:",
            " cv.",
            " cv\n",
            "\ncv",
            "cv_draft",
            "السيرة الذاتية",
            "سيرة ذاتية",
        ),
    ),
    (Kind.EMERGENCY, ("emergency", "first aid", "first-aid", "طوارئ", "إسعاف")),
    (
        Kind.CODE,
        (
            "write code",
            "source code",
            "code in ",
            "programming",
            "programmer",
            "coding",
            "function that",
            "a script",
            "كود برمجي",
        ),
    ),
    (Kind.ANALYTICS, ("analytics", "metrics", "kpi", "insights", "مؤشرات", "تحليلات", "إحصاءات")),
)

_SIGNS: dict[str, str] = {
    "aries": "الحمل",
    "taurus": "الثور",
    "gemini": "الجوزاء",
    "cancer": "السرطان",
    "leo": "الأسد",
    "virgo": "العذراء",
    "libra": "الميزان",
    "scorpio": "العقرب",
    "sagittarius": "القوس",
    "capricorn": "الجدي",
    "aquarius": "الدلو",
    "pisces": "الحوت",
}
_ENGLISH_OF = {arabic: english for english, arabic in _SIGNS.items()}
_SIGN = re.compile(rf"\b(?:{'|'.join((*_SIGNS, *_ENGLISH_OF))})\b")

_CARDS: dict[str, str] = {
    "the fool": "المهرج",
    "the magician": "الساحر",
    "the high priestess": "الكاهنة الكبرى",
    "the empress": "الإمبراطورة",
    "the emperor": "الإمبراطور",
    "the hierophant": "الكاهن الأعظم",
    "the lovers": "العاشقان",
    "the chariot": "العربة",
    "strength": "القوة",
    "the hermit": "الناسك",
    "wheel of fortune": "عجلة الحظ",
    "justice": "العدالة",
    "the hanged man": "الرجل المعلق",
    "death": "الموت",
    "temperance": "الاعتدال",
    "the devil": "الشيطان",
    "the tower": "البرج",
    "the star": "النجمة",
    "the moon": "القمر",
    "the sun": "الشمس",
    "judgement": "الحساب",
    "the world": "العالم",
}
_RANKS = "ace|two|three|four|five|six|seven|eight|nine|ten|page|knight|queen|king"
_CARD = re.compile(rf"\b(?:{'|'.join(_CARDS)}|(?:{_RANKS}) of (?:cups|wands|swords|pentacles))\b")

_ROLE = re.compile(
    r"(?:\b(?:role|position|job(?: title)?|title|as an?)|الوظيفة|المسمى)\W{1,4}([^\W\d_][\w /+#-]{2,48})",
    re.IGNORECASE,
)
_METRIC = re.compile(r"[\"']?([^\W\d][\w ]{1,30}?)[\"']?\s*[:=]\s*[\"']?([-+]?\d[\d.,]*\s?%?)")
_TOPIC_WORDS = 9


def kind_of(prompt: Prompt) -> Kind:
    cues = prompt.cues
    for kind, words in _CUES:
        if any(word in cues for word in words):
            return kind
    return Kind.PICTURE if prompt.images else Kind.CHAT


def facts_of(prompt: Prompt, kind: Kind) -> dict[str, str]:
    """Slot values that the prompt itself provides; what it does not say is left to the grammar's own
    words."""
    find = _FACTS.get(kind)
    return find(prompt) if find else {"topic": _topic(prompt)}


def _sign(prompt: Prompt) -> dict[str, str]:
    found = _SIGN.search(prompt.question.lower()) or _SIGN.search(prompt.cues)
    if found is None:
        return {}
    english = _ENGLISH_OF.get(found[0], found[0])
    return {"sign": _SIGNS[english] if prompt.language == "ar" else english.capitalize()}


def _cards(prompt: Prompt) -> dict[str, str]:
    found = list(dict.fromkeys(_CARD.findall(prompt.question.lower())))[:3]
    return {f"card{place}": _card_name(card, prompt.language) for place, card in enumerate(found, 1)}


def _card_name(card: str, language: Language) -> str:
    if language == "ar":
        return _CARDS.get(card, card.title())
    return card.title().replace(" Of ", " of ")


def _role(prompt: Prompt) -> dict[str, str]:
    found = _ROLE.search(prompt.question)
    return {"role": found[1].strip()} if found else {}


def _metrics(prompt: Prompt) -> dict[str, str]:
    found = _METRIC.findall(prompt.question)[:3]
    if not found:
        return {}
    joiner = "، و" if prompt.language == "ar" else ", "
    return {
        "figures": joiner.join(
            f"{name.strip().replace('_', ' ')} {value.strip(' .,')}" for name, value in found
        )
    }


_FACTS: dict[Kind, Callable[[Prompt], dict[str, str]]] = {
    Kind.HOROSCOPE: _sign,
    Kind.TAROT: _cards,
    Kind.CV: _role,
    Kind.COVER_LETTER: _role,
    Kind.ANALYTICS: _metrics,
}


def _topic(prompt: Prompt) -> str:
    words = prompt.question[:400].split()
    topic = " ".join(words[:_TOPIC_WORDS]).strip(" .,;:!?؟،\"'")
    return (topic + "…" if len(words) > _TOPIC_WORDS else topic) or (
        "سؤالك" if prompt.language == "ar" else "this"
    )
