"""One door to all judges for the commands: options in, a judge out."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from interp.errors import CliffscopeError
from interp.judges.keyword import KeywordJudge
from interp.judges.protocol import Judge

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

KINDS = ("keyword", "refusal-logit", "classifier", "llm")

# Which options each kind has; any other that is set would be ignored, and its user misled.
_HAS: dict[str, frozenset[str]] = {
    "keyword": frozenset({"phrases"}),
    "refusal-logit": frozenset({"model"}),
    "classifier": frozenset({"model", "form", "template", "raw", "benign"}),
    "llm": frozenset({"model", "endpoint", "template", "cache", "max_calls", "max_tokens", "timeout", "concurrency"}),
}


@dataclass(frozen=True)
class JudgeOptions:
    """Which judge, and how. An option that is `None` or `False` is not set.

    Attributes:
        kind: `keyword`, `refusal-logit`, `classifier` or `llm`.
        model: The classifier, or the model whose refusal logit it is, as `HookedModel.load` takes it; for `llm` the
            model's name on the server.
        phrases: `keyword`: a phrase list, bundled or a file.
        form: `classifier`: `llama-guard` (default) or `harmbench`.
        template: `classifier` of the `harmbench` form: a file with the text it is asked. `llm`: one with the rubric.
        raw: `classifier`: the template is the whole input, not a message for the chat template.
        benign: `classifier`: `keyword` judges the prompts that are not known to be harmful by keywords; else they are
            not judged.
        endpoint: `llm`: the server.
        cache: `llm`: the file that keeps what is judged.
        max_calls, max_tokens, timeout, concurrency: `llm`: as in `EndpointJudge`.

    Raises:
        CliffscopeError: If the kind is unknown, or lacks an option, or has one that belongs to another kind.
    """

    kind: str = "keyword"
    model: str | None = None
    phrases: str | None = None
    form: str | None = None
    template: Path | None = None
    raw: bool = False
    benign: str | None = None
    endpoint: str | None = None
    cache: Path | None = None
    max_calls: int | None = None
    max_tokens: int | None = None
    timeout: float | None = None
    concurrency: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in _HAS:
            raise CliffscopeError(f"judge {self.kind!r}: expected one of {', '.join(KINDS)}.")
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if name != "kind" and value is not None and value is not False and name not in _HAS[self.kind]:
                owners = " and ".join(kind for kind in KINDS if name in _HAS[kind])
                raise CliffscopeError(f"judge {self.kind}: has no {name.replace('_', '-')}, which is for {owners}.")
        if self.kind == "classifier" and self.model is None:
            raise CliffscopeError("judge classifier: give the classifier's model.")
        if self.kind == "llm" and self.endpoint is None:
            raise CliffscopeError("judge llm: give the endpoint, such as http://localhost:8000.")
        if self.benign not in (None, "keyword"):
            raise CliffscopeError(f"judge of benign prompts {self.benign!r}: expected keyword.")


def make_judge(
    options: JudgeOptions, model: "HookedModel | None" = None, *, device: str = "auto", dtype: str = "auto"
) -> Judge:
    """The judge that the options describe.

    Args:
        options: Which judge, and how.
        model: The model that is judged, if it is loaded: `refusal-logit` reads it where `options.model` is not set.
        device: Where a model is loaded.
        dtype: In which precision; `auto` is the checkpoint's own.

    Raises:
        CliffscopeError: If a model or file cannot be loaded, or is not what the judge needs, or there is no server.
    """
    if options.kind == "keyword":
        return KeywordJudge(options.phrases or "cliffscope")
    if options.kind == "llm":
        return _endpoint_judge(options)
    from interp.models.hooked_model import HookedModel

    if options.model is not None:
        model = HookedModel.load(options.model, device=device, dtype=dtype)
    if model is None:
        raise CliffscopeError(f"judge {options.kind}: give the model to judge with.")
    if options.kind == "refusal-logit":
        from interp.judges.edge_logit import RefusalLogitJudge

        return RefusalLogitJudge.of(model)
    return _classifier_judge(options, model)


def _classifier_judge(options: JudgeOptions, model: "HookedModel") -> Judge:
    from interp.judges.by_harm import JudgeByHarm
    from interp.judges.classifier import ClassifierJudge
    from interp.judges.question import Question

    question = None if options.template is None else Question.load(options.template)
    judge = ClassifierJudge(model, options.form or "llama-guard", question, options.raw)
    return judge if options.benign is None else JudgeByHarm(judge, KeywordJudge())


def _endpoint_judge(options: JudgeOptions) -> Judge:
    from interp.judges.endpoint_judge import EndpointJudge
    from interp.judges.judgement_cache import JudgementCache
    from interp.judges.question import Question

    given = {name: getattr(options, name) for name in ("model", "max_calls", "max_tokens", "timeout", "concurrency")}
    if options.template is not None:
        given["rubric"] = Question.load(options.template)
    judge = EndpointJudge(
        str(options.endpoint),
        cache=JudgementCache(options.cache),
        **{name: value for name, value in given.items() if value is not None},
    )
    judge.server.require_reachable()
    return judge
