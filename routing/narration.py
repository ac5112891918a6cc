"""Telling a listener what a job's answer says while it is written."""

from __future__ import annotations

from typing import Protocol


class Listener(Protocol):
    """Who is told. Must not raise, and must not wait."""

    def text(self, text: str) -> None:
        """The answer goes on."""

    def restarted(self, reason: str) -> None:
        """What was said so far does not count."""


class Narrator:
    """Tells a listener of one run. `has_said`: whether an earlier run has said something already."""

    def __init__(self, listener: Listener, *, has_said: bool = False) -> None:
        self._listener = listener
        self._has_said = has_said

    def say(self, text: str) -> None:
        """Tell more of the answer."""
        self._has_said = True
        self._listener.text(text)

    def end(self, text: str) -> None:
        """The answer is whole. It is told at once where it could not be told as it was written."""
        if not self._has_said:
            self.say(text)

    def begin(self, reason: str) -> None:
        """Another try begins. Where the one before has said something, it no longer counts."""
        if self._has_said:
            self._has_said = False
            self._listener.restarted(reason)
