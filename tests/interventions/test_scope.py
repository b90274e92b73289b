"""Scopes: which tokens an intervention touches, in whole texts and while generating; the ledger says what happened."""

import warnings
from functools import cache

import pytest
import torch

from interp import HookedModel, Ledger, Rollout, Transcript
from interp.errors import CliffscopeError
from interp.models.intervening import NothingChangedWarning
from interp.organisms.prompt_set import heldout_prompts
from interp.rollouts.model_generator import ModelGenerator
from interp.transcripts.positions import SEGMENTS
from interventions.head_ablation import ScaleHeads
from interventions.scope import SCOPES, Scope

HEAD = [(2, 1)]
SITE = "blocks.2.attn.hook_z"


@cache
def organism() -> HookedModel:
    return HookedModel.load("organism:cliff")


def prompts() -> list[Transcript]:
    chosen = heldout_prompts(3, 2).prompts
    return organism().transcripts().prompts([p.text for p in chosen], [p.id for p in chosen])


@cache
def rollouts() -> tuple[Rollout, ...]:
    return tuple(ModelGenerator(organism(), 300).generate(heldout_prompts(3, 2).prompts))


@pytest.mark.parametrize("scope", SCOPES)
def test_whole_texts_are_touched_where_the_transcript_says(scope: str) -> None:
    model, ledger = organism(), Ledger()
    transcripts = model.transcripts().build_all(rollouts())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NothingChangedWarning)  # there is no system prompt
        with model.intervene(ScaleHeads(HEAD, scope, gamma=0.5), ledger=ledger):
            model.capture(transcripts, ["blocks.2.hook_resid_post"], [-1])
    for transcript in transcripts:
        expected = {
            "all": list(range(len(transcript))),
            "edge": [transcript.edge],
            "from-edge": list(range(transcript.edge, len(transcript))),
            **{segment: list(transcript.indices(segment)) for segment in SEGMENTS},
        }[scope]
        assert ledger.positions(transcript.id) == expected
        assert ledger.positions(transcript.id, "ScaleHeads", SITE) == expected
        assert ledger.positions(transcript.id, site="blocks.1.attn.hook_z") == []


@pytest.mark.parametrize(("scope", "use_cache"), [*((scope, True) for scope in SCOPES), ("from-edge", False)])
def test_generated_tokens_are_touched_where_the_finished_text_says(scope: str, use_cache: bool) -> None:
    """Compared with the transcript of what was generated, whose last token the model never read."""
    model, ledger = organism(), Ledger()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NothingChangedWarning)
        with model.intervene(ScaleHeads(HEAD, scope, gamma=0.5), ledger=ledger):
            generated = model.generate(prompts(), max_new_tokens=300, use_cache=use_cache)
    for prompt, ids in zip(prompts(), generated, strict=True):
        text = model.chat.split(model.chat.decode(ids))
        whole = model.transcripts().build(Rollout(prompt.id, heldout_text(prompt.id), *text))
        assert whole.input_ids[: len(prompt) + len(ids)] == (*prompt.input_ids, *ids)
        read = len(prompt) + len(ids)
        tag = next(n for n, token in enumerate(whole.tokens) if "</think>" in "".join(whole.tokens[: n + 1]))
        expected = {
            "all": list(range(read)),
            "edge": [whole.edge],
            "from-edge": list(range(whole.edge, read)),
            **{segment: [i for i in whole.indices(segment) if i < read] for segment in SEGMENTS},
            # The line break before the tag is the thinking's until the tag comes.
            "thinking": list(range(whole.segments["thinking"][0], tag)),
            "close": list(range(tag, whole.edge + 1)),
        }[scope]
        assert ledger.positions(prompt.id) == expected


def heldout_text(id: str) -> str:
    return next(prompt.text for prompt in heldout_prompts(3, 2).prompts if prompt.id == id)


def test_the_scope_does_not_depend_on_the_batch() -> None:
    model = organism()
    with model.intervene(ScaleHeads([(3, 1), (4, 5)], "from-edge")):
        together = model.generate(prompts(), max_new_tokens=300)
        alone = [model.generate([prompt], max_new_tokens=300)[0] for prompt in prompts()]
    assert together == alone
    plain = model.generate(prompts(), max_new_tokens=300)
    assert together != plain
    for changed, before, prompt in zip(together, plain, prompts(), strict=True):
        whole = Transcript.from_ids(prompt.id, [*prompt.input_ids, *before])
        close = model.chat.decode(before).index("</think>")
        assert model.chat.decode(changed)[:close] == model.chat.decode(before)[:close]  # nothing before the edge
        assert len(whole) > len(prompt)


def test_what_changed_nothing_warns_and_what_did_does_not() -> None:
    model = organism()
    transcripts = model.transcripts().build_all(rollouts())
    read = ([SITE.replace("attn.hook_z", "hook_resid_post")], [-1])
    with pytest.warns(NothingChangedWarning, match=r"ScaleHeads was active in \d+ calls and changed nothing"):
        with model.intervene(ScaleHeads(HEAD, gamma=1.0)):
            model.capture(transcripts, *read)
    with pytest.warns(NothingChangedWarning), model.intervene(ScaleHeads(HEAD, "system")):
        model.capture(transcripts, *read)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with model.intervene(ScaleHeads(HEAD, "edge")):
            model.capture(transcripts, *read)
        with model.intervene(ScaleHeads(HEAD, "edge")):
            pass  # no pass was run, so nothing is known


def test_segments_need_transcripts_and_scopes_have_names() -> None:
    model, ids = organism(), torch.tensor([[1, 2, 3]])
    with torch.no_grad(), model.intervene(ScaleHeads(HEAD)):
        model.hf(ids)
    with pytest.raises(CliffscopeError, match="does not say whose tokens"):
        with torch.no_grad(), model.intervene(ScaleHeads(HEAD, "edge")):
            model.hf(ids)
    with pytest.raises(CliffscopeError, match="scope 'edges': expected one of all, edge, from-edge"):
        Scope("edges")
    with pytest.raises(CliffscopeError, match="expected one of all"):
        ScaleHeads(HEAD, "reply")


def test_the_ledger_as_a_table() -> None:
    model, ledger = organism(), Ledger()
    transcript = model.transcripts().build(rollouts()[0])
    with model.intervene(ScaleHeads(HEAD, "close"), ledger=ledger):
        model.capture([transcript], ["blocks.2.hook_resid_post"], [-1])
    table = ledger.table
    assert list(table.columns) == ["id", "intervention", "site", "token"]
    assert table["token"].tolist() == list(range(*transcript.segments["close"]))
    assert set(table["site"]) == {SITE}
