"""The wire protocols: one entry per vendor, under the path that carries its name."""

from collections.abc import Mapping

from standalone.sandbox.protocols.anthropic import Anthropic
from standalone.sandbox.protocols.openai import OpenAI
from standalone.sandbox.values import WireProtocol

PROTOCOLS: Mapping[str, WireProtocol] = {"openai": OpenAI(), "anthropic": Anthropic()}
