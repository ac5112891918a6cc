"""Makes jobs deadly that say so, in every Python process whose PYTHONPATH has this folder.

Python runs a module of this name at its start. No hook in the product is needed.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

from routing import failover
from routing.values import Outcome, Plan, Request

_execute = failover.execute


def _execute_or_die(plan: Plan, request: Request, **tools: Any) -> Outcome:
    last_words = request.input.get("profile")
    if last_words == "exit":
        os._exit(1)
    if last_words == "segfault":
        ctypes.string_at(0)
    return _execute(plan, request, **tools)


failover.execute = _execute_or_die
