"""Parameters that models have refused in this process, so that only the first job pays for finding out."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeAlias
from uuid import UUID

from routing.errors import UnsupportedParameter
from routing.values import Call, Route

_Model: TypeAlias = tuple[UUID, str, str]
_MODELS = 1024  # remembered; the one used longest ago is forgotten first


class Refusals:
    """Per provider and model id: parameter → (refused value, name to send it under instead, or None).

    The value is part of it: a model that refuses one reasoning effort may take another. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[_Model, dict[str, tuple[Any, str | None]]] = OrderedDict()

    def learn(self, call: Call, error: UnsupportedParameter) -> bool:
        """Remember the refusal. False where `call` did not send that parameter, so that leaving it out helps
        nothing."""
        if error.parameter not in call.parameters:
            return False
        with self._lock:
            model = self._known.setdefault(_key(call.route), {})
            model[error.parameter] = (call.parameters[error.parameter], error.replacement)
            while len(self._known) > _MODELS:
                self._known.popitem(last=False)
        return True

    def applied(self, call: Call) -> Call:
        """`call` without the parameters its model is known to refuse."""
        key = _key(call.route)
        with self._lock:
            if key not in self._known:
                return call
            self._known.move_to_end(key)
            refused = dict(self._known[key])
        return replace(call, parameters=_without(call.parameters, refused))


def _without(parameters: Mapping[str, Any], refused: Mapping[str, tuple[Any, str | None]]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in parameters.items():
        bad_value, replacement = refused.get(name, (None, None))
        if name not in refused or bad_value != value:
            kept[name] = value
        elif replacement is not None:
            kept.setdefault(replacement, value)
    return kept


def _key(route: Route) -> _Model:
    return route.provider.id, route.provider.base_url, route.model.model_id
