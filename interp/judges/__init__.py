"""Judges: whether a response refuses. One small protocol, and the judges that need no other model.

`KeywordJudge` reads the response, `RefusalLogitJudge` the model's prediction of its first token. Neither
reads the thinking: a model that says "I should refuse" and then answers has not refused.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from interp.judges.keyword import KeywordJudge, PhraseList
from interp.judges.protocol import Judge, Judgement, judged
from interp.judges.useless import is_looping, is_useless

if TYPE_CHECKING:
    from interp.judges.edge_logit import (
        RefusalLogitJudge,
        RefusalOpenings,
        refusal_logit,
        refusal_token_ids,
    )

__all__ = [
    "Judge",
    "Judgement",
    "KeywordJudge",
    "PhraseList",
    "RefusalLogitJudge",
    "RefusalOpenings",
    "is_looping",
    "is_useless",
    "judged",
    "refusal_logit",
    "refusal_token_ids",
]


def __getattr__(name: str) -> Any:
    """Imports torch only for the names that need it."""
    if name in __all__:
        return getattr(import_module("interp.judges.edge_logit"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
