"""The wire protocols: one entry per vendor, under the path that carries its name."""

from collections.abc import Mapping

from standalone.sandbox.protocols.anthropic import Anthropic
from standalone.sandbox.protocols.elevenlabs import ElevenLabs
from standalone.sandbox.protocols.gemini import Gemini
from standalone.sandbox.protocols.openai import OpenAI
from standalone.sandbox.values import WireProtocol

PROTOCOLS: Mapping[str, WireProtocol] = {
    "openai": OpenAI(),
    "anthropic": Anthropic(),
    "gemini": Gemini(),
    "elevenlabs": ElevenLabs(),
}
