"""Moderation by word list: predictable verdicts, with scores that look like a classifier's."""

import re
from dataclasses import dataclass
from hashlib import blake2b

_PHRASES: dict[str, str] = {
    "harassment": r"idiots?|morons?|stupid|losers?|shut up|pathetic|worthless|غبي|أحمق|تافه",
    "harassment/threatening": r"i(?:'ll| will) (?:kill|hurt|find) you|you(?:'ll| will) pay for this|سأقتلك",
    "hate": r"subhumans?|inferior races?|i hate (?:all )?(?:immigrants|foreigners|women|men)|عرق أدنى",
    "hate/threatening": r"exterminate (?:them|all)|(?:kill|burn) (?:all|those) (?:immigrants|foreigners)",
    "illicit": r"cocaine|heroin|meth lab|fake money|steal a car|launder money|كوكايين|هيروين|غسل أموال",
    "illicit/violent": r"(?:build|make) a bomb|pipe bombs?|untraceable gun|صنع قنبلة",
    "self-harm": r"suicide|self-harm|cut(?:ting)? myself|kill(?:ing)? myself|hurt myself|انتحار|أؤذي نفسي",
    "self-harm/intent": r"(?:i want|i am going|i'm going) to (?:die|kill myself|hurt myself)|أريد أن أموت",
    "self-harm/instructions": r"how (?:do i|to) (?:kill|hurt|cut) (?:myself|yourself)|painless suicide",
    "sexual": r"porn|pornograph\w*|explicit sex|erotica?|nudes?|إباحي\w*",
    "sexual/minors": r"child porn|sexual\w* (?:child|minor)s?|underage (?:sex|nudes?)",
    "violence": r"kill(?:s|ed|ing)?|murder\w*|stab(?:s|bed|bing)?|shoot (?:him|her)|massacre|قتل|ذبح",
    "violence/graphic": r"dismember\w*|decapitat\w*|disembowel\w*|gutted alive|blood everywhere|قطع رأس",
}
# Arabic writes the article and short prepositions in one word with the noun.
_ARABIC_PREFIX = "(?:[وفبكل]?(?:ال|لل)?)"
_PATTERNS = {
    name: re.compile(rf"(?<!\w){_ARABIC_PREFIX}(?:{phrases})(?!\w)", re.IGNORECASE)
    for name, phrases in _PHRASES.items()
}
CATEGORIES = tuple(_PHRASES)


@dataclass(frozen=True)
class Verdict:
    """``scores`` are 0 to 1, by category: above one half for those in ``hits``, far below for the others."""

    hits: frozenset[str]
    scores: dict[str, float]

    @property
    def flagged(self) -> bool:
        return bool(self.hits)


def judge(text: str) -> Verdict:
    hits = frozenset(name for name, pattern in _PATTERNS.items() if pattern.search(text))
    return Verdict(hits, {name: _score(name, text, name in hits) for name in CATEGORIES})


def _score(category: str, text: str, hit: bool) -> float:
    digest = blake2b(f"{category}\0{text}".encode("utf-8", "surrogatepass"), digest_size=4).digest()
    share = int.from_bytes(digest, "little") / 2**32
    return round(0.62 + 0.37 * share, 6) if hit else round(1e-6 + 4e-3 * share**3, 8)
