"""Providers that live on this machine: the vendors' wire protocols over real HTTP, without a network.

The sandbox invents its answers, yet keeps every promise a client relies on: the shapes of replies and errors,
token counts that follow the text, limits that really cut, and failures on demand. Nothing of Orrery's own
adapters is imported here, so that a misreading of a protocol on one side shows on the other.
"""

from standalone.sandbox.app import create_app
from standalone.sandbox.server import serve

__all__ = ["create_app", "serve"]
