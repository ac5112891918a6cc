"""Short, working functions in the language that the prompt names."""

import random
import re

from standalone.sandbox.prose.prompt import Prompt

_LANGUAGE = re.compile(r"\b(python|javascript|typescript|golang|go|sql|bash|shell)\b")
_ALIASES = {"typescript": "javascript", "golang": "go", "shell": "bash"}

_SNIPPETS: dict[str, tuple[str, ...]] = {
    "python": (
        "from collections.abc import Iterable, Iterator\n\n\n"
        "def chunks(items: Iterable[str], size: int) -> Iterator[list[str]]:\n"
        "    batch: list[str] = []\n    for item in items:\n        batch.append(item)\n"
        "        if len(batch) == size:\n            yield batch\n            batch = []\n"
        "    if batch:\n        yield batch\n",
        "def word_counts(text: str) -> dict[str, int]:\n    counts: dict[str, int] = {}\n"
        "    for word in text.lower().split():\n"
        "        counts[word] = counts.get(word, 0) + 1\n    return counts\n",
        "def clamp(value: float, low: float, high: float) -> float:\n"
        "    if low > high:\n        raise ValueError('low is above high')\n"
        "    return max(low, min(value, high))\n",
    ),
    "javascript": (
        "export function groupBy(items, key) {\n  const groups = new Map();\n  for (const item of items) {\n"
        "    const name = key(item);\n    if (!groups.has(name)) groups.set(name, []);\n"
        "    groups.get(name).push(item);\n  }\n  return groups;\n}\n",
        "export async function retry(task, tries) {\n  for (let attempt = 1; ; attempt += 1) {\n    try {\n"
        "      return await task();\n    } catch (error) {\n"
        "      if (attempt >= tries) throw error;\n    }\n  }\n}\n",
    ),
    "go": (
        "func Unique(values []string) []string {\n\tseen := map[string]bool{}\n\tvar result []string\n"
        "\tfor _, value := range values {\n\t\tif !seen[value] {\n\t\t\tseen[value] = true\n"
        "\t\t\tresult = append(result, value)\n\t\t}\n\t}\n\treturn result\n}\n",
    ),
    "sql": (
        "SELECT date_trunc('day', created_at) AS day, count(*) AS orders, sum(total) AS revenue\n"
        "FROM orders\nWHERE created_at >= now() - interval '30 days'\nGROUP BY day\nORDER BY day;\n",
    ),
    "bash": (
        '#!/usr/bin/env bash\nset -euo pipefail\n\nfor file in "$@"; do\n'
        '  printf \'%s\\t%s\\n\' "$(wc -l < "$file")" "$file"\ndone | sort -rn\n',
    ),
}
_INTRODUCTIONS = {
    "en": (
        "Here is a small, self-contained solution.",
        "This does it without dependencies.",
        "One way to write it:",
    ),
    "ar": ("هذا حل صغير قائم بذاته.", "هذه طريقة بسيطة لا تحتاج إلى مكتبات إضافية."),
}
_CLOSINGS = {
    "en": ("It runs in linear time; add tests for the empty input.", "Adapt the names to your code base."),
    "ar": ("ينفَّذ هذا الحل في زمن خطي، ويحسن اختباره بمدخلات فارغة.", "غيّر الأسماء بما يناسب مشروعك."),
}


def write_code(prompt: Prompt, dice: random.Random) -> str:
    found = _LANGUAGE.findall(prompt.cues)
    name = found[-1] if found else "python"
    language = _ALIASES.get(name, name)
    snippet = dice.choice(_SNIPPETS[language])
    introduction, closing = (
        dice.choice(_INTRODUCTIONS[prompt.language]),
        dice.choice(_CLOSINGS[prompt.language]),
    )
    return f"{introduction}\n\n```{language}\n{snippet}```\n\n{closing}"
