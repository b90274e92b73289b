"""What all else stands on: hooked models, transcripts and positions, prompts, rollouts, judges, organisms.

Names are loaded on first use, so that `import interp` costs nothing and imports no heavy library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.errors import CliffscopeError
    from interp.models.capture import Capture
    from interp.models.hooked_model import HookedModel
    from interp.models.hooks import Intervention
    from interp.models.ledger import Ledger
    from interp.models.token_context import TokenContext
    from interp.rollouts import Rollout, read_rollouts, write_rollouts
    from interp.rollouts.model_generator import ModelGenerator
    from interp.rollouts.prompts import Prompt, PromptSet, load_prompts
    from interp.transcripts import Transcript, TranscriptBuilder
    from interp.transcripts.chat import ChatFormat, ThinkingFormat

__all__ = [
    "Capture",
    "ChatFormat",
    "CliffscopeError",
    "HookedModel",
    "Intervention",
    "Ledger",
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
    "errors": ("CliffscopeError",),
    "models.capture": ("Capture",),
    "models.hooked_model": ("HookedModel",),
    "models.hooks": ("Intervention",),
    "models.ledger": ("Ledger",),
    "models.token_context": ("TokenContext",),
    "rollouts": ("Rollout", "read_rollouts", "write_rollouts"),
    "rollouts.model_generator": ("ModelGenerator",),
    "rollouts.prompts": ("Prompt", "PromptSet", "load_prompts"),
    "transcripts": ("Transcript", "TranscriptBuilder"),
    "transcripts.chat": ("ChatFormat", "ThinkingFormat"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"interp.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
