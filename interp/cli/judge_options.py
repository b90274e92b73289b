"""The options of judges, which several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Kind(StrEnum):
    """The judges."""

    KEYWORD = "keyword"
    REFUSAL_LOGIT = "refusal-logit"
    CLASSIFIER = "classifier"
    LLM = "llm"


class Form(StrEnum):
    """The forms of classifiers."""

    LLAMA_GUARD = "llama-guard"
    HARMBENCH = "harmbench"


JudgeModel = Annotated[
    str | None,
    typer.Option(
        "--judge-model", help="The classifier, or the model to read the refusal logit of; the name on a server."
    ),
]
JudgeEndpoint = Annotated[str | None, typer.Option("--endpoint", help="llm: an OpenAI-compatible server.")]
JudgeForm = Annotated[Form | None, typer.Option("--form", help="classifier: llama-guard if not given.")]
JudgeTemplate = Annotated[
    Path | None, typer.Option("--template", help="llm: your rubric; classifier: the text a harmbench one is asked.")
]
JudgeRaw = Annotated[
    bool, typer.Option("--raw", help="classifier: the template is the whole input, with its own marks of roles.")
]
MaxCalls = Annotated[int | None, typer.Option("--max-calls", min=0, help="llm: most requests of this run.")]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", min=0, help="llm: most tokens of this run, as the server counts them.")
]
Timeout = Annotated[float | None, typer.Option("--timeout", min=0.001, help="llm: seconds to wait for one answer.")]
Concurrency = Annotated[int | None, typer.Option("--concurrency", min=1, help="llm: requests at once.")]
