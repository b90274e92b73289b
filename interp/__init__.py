"""What all else stands on: hooked models, transcripts and positions, prompts, rollouts, judges, organisms.

Names are loaded on first use, so that `import interp` costs nothing and imports no heavy library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.capture import Capture
    from interp.chat import ChatFormat, ThinkingFormat
    from interp.errors import CliffscopeError
    from interp.hooks import Intervention, TokenContext
    from interp.model import HookedModel
    from interp.model_generator import ModelGenerator
    from interp.prompts import Prompt, PromptSet, load_prompts
    from interp.rollouts import Rollout, read_rollouts, write_rollouts
    from interp.transcripts import Transcript, TranscriptBuilder

__all__ = [
    "Capture",
    "ChatFormat",
    "CliffscopeError",
    "HookedModel",
    "Intervention",
    "ModelGenerator",
    "Prompt",
    "PromptSet",
    "Rollout",
    "ThinkingFormat",
    "TokenContext",
    "Transcript",
    "TranscriptBuilder",
    "load_prompts",
    "read_rollouts",
    "write_rollouts",
]

_HOMES = {
    "capture": ("Capture",),
    "chat": ("ChatFormat", "ThinkingFormat"),
    "errors": ("CliffscopeError",),
    "hooks": ("Intervention", "TokenContext"),
    "model": ("HookedModel",),
    "model_generator": ("ModelGenerator",),
    "prompts": ("Prompt", "PromptSet", "load_prompts"),
    "rollouts": ("Rollout", "read_rollouts", "write_rollouts"),
    "transcripts": ("Transcript", "TranscriptBuilder"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"interp.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
