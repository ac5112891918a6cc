"""The wire protocols: one entry per vendor, under the path that carries its name."""

from collections.abc import Mapping

from standalone.sandbox.batches import BatchDesk
from standalone.sandbox.calls import CallLog
from standalone.sandbox.faults import FaultBoard
from standalone.sandbox.protocols.anthropic import Anthropic
from standalone.sandbox.protocols.elevenlabs import ElevenLabs
from standalone.sandbox.protocols.gemini import Gemini
from standalone.sandbox.protocols.openai import OpenAI
from standalone.sandbox.values import WireProtocol

NAMES = ("openai", "anthropic", "gemini", "elevenlabs")


def create_protocols(faults: FaultBoard, calls: CallLog) -> Mapping[str, WireProtocol]:
    """The protocols by name, without any batches yet."""
    return {
        "openai": OpenAI(BatchDesk("openai", faults, calls)),
        "anthropic": Anthropic(BatchDesk("anthropic", faults, calls)),
        "gemini": Gemini(BatchDesk("gemini", faults, calls)),
        "elevenlabs": ElevenLabs(),
    }
