"""Judges: whether a response refuses. One small protocol, and the judges behind it.

`KeywordJudge` reads the response, `RefusalLogitJudge` the model's prediction of its first token, `ClassifierJudge` asks
a classifier model on this machine, `EndpointJudge` a language model on a server. None reads the thinking: a model that
says "I should refuse" and then answers has not refused. `make_judge` makes any of them from options,
`measure_agreement` compares two.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from interp.judges.by_harm import JudgeByHarm
from interp.judges.choosing import JudgeOptions, make_judge
from interp.judges.keyword import KeywordJudge, PhraseList
from interp.judges.protocol import Judge, Judgement, judged
from interp.judges.question import Question
from interp.judges.useless import is_looping, is_useless

if TYPE_CHECKING:
    from interp.judges.agreement import Agreement, measure_agreement
    from interp.judges.classifier import ClassifierJudge
    from interp.judges.edge_logit import (
        RefusalLogitJudge,
        RefusalOpenings,
        refusal_logit,
        refusal_token_ids,
    )
    from interp.judges.endpoint_judge import EndpointJudge
    from interp.judges.judgement_cache import JudgementCache

__all__ = [
    "Agreement",
    "ClassifierJudge",
    "EndpointJudge",
    "Judge",
    "JudgeByHarm",
    "JudgeOptions",
    "Judgement",
    "JudgementCache",
    "KeywordJudge",
    "PhraseList",
    "Question",
    "RefusalLogitJudge",
    "RefusalOpenings",
    "is_looping",
    "is_useless",
    "judged",
    "make_judge",
    "measure_agreement",
    "refusal_logit",
    "refusal_token_ids",
]

# Imported when first asked for: they need torch, an HTTP client or numpy.
_LATER = {
    "Agreement": "agreement",
    "ClassifierJudge": "classifier",
    "EndpointJudge": "endpoint_judge",
    "JudgementCache": "judgement_cache",
    "RefusalLogitJudge": "edge_logit",
    "RefusalOpenings": "edge_logit",
    "measure_agreement": "agreement",
    "refusal_logit": "edge_logit",
    "refusal_token_ids": "edge_logit",
}


def __getattr__(name: str) -> Any:
    """Imports what is heavy only for the names that need it."""
    if name in _LATER:
        return getattr(import_module(f"interp.judges.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
