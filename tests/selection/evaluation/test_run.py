"""Evaluating the organism: the planted truth, figures computed by another road, and what is taken up or refused."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interp import HookedModel, Rollout
from interp.errors import CliffscopeError
from interp.judges import JudgeByHarm, Judgement, KeywordJudge, RefusalLogitJudge
from interp.rollouts import read_rollouts
from interp.rollouts.model_generator import ModelGenerator
from interp.rollouts.prompts import PromptSet
from interventions.behaviour import Behaviour, answer
from interventions.head_ablation import ScaleHeads
from selection.evaluation import Evaluation, EvaluationOptions, compare, evaluate, rollouts_folder
from selection.evaluation.subject import weights_hash
from tests.circuits.material import organism
from tests.cli import material as checkpoints
from tests.selection.evaluation.material import PLANTED, prompts

HARMFUL, BENIGN, TRAPS = prompts("harmful", 24), prompts("benign", 10), prompts("trap", 4)
OPTIONS = EvaluationOptions(max_new_tokens=300, batch_size=16)
MASK = {"mask": ScaleHeads(PLANTED)}


@pytest.fixture(scope="module")
def model() -> HookedModel:
    return organism("cliff")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluations")


@pytest.fixture(scope="module")
def base(model: HookedModel, folder: Path) -> Evaluation:
    return evaluate(model, HARMFUL, BENIGN, folder / "base.json", traps=TRAPS, options=OPTIONS, label="base")


@pytest.fixture(scope="module")
def masked(model: HookedModel, folder: Path) -> Evaluation:
    out = folder / "mask.json"
    return evaluate(model, HARMFUL, BENIGN, out, traps=TRAPS, interventions=MASK, options=OPTIONS, label="mask")


def small(model: HookedModel, out: Path, **options: Any) -> Evaluation:
    """A quick one."""
    made = {"options": EvaluationOptions(max_new_tokens=300), **options}
    return evaluate(model, PromptSet(HARMFUL[:4]), PromptSet(BENIGN[:3]), out, **made)


def no_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HookedModel, "generate", lambda *args, **options: pytest.fail("generated again"))


def test_the_planted_truth(base: Evaluation, masked: Evaluation) -> None:
    assert base.asr.value >= 0.6 and masked.asr.value == 0
    assert base.over_refusal.value == masked.over_refusal.value == masked.rate("trap_refusal").value == 0
    differences = compare([base, masked]).differences[0]
    assert differences["asr"].n == 24 and differences["asr"].test.p < 1e-3 and differences["asr"].interval.high < -0.3
    assert differences["over_refusal"].test.p == 1
    assert base.kl.value is None and base.kl.reason == "it is the base itself"
    assert masked.kl.value is not None and 0 < masked.kl.value < 0.1
    assert (base.label, base.interventions, masked.interventions) == ("base", (), ("mask",))
    assert base.reference == masked.reference


def test_it_agrees_with_answering_the_prompts_by_hand(model: HookedModel, base: Evaluation, masked: Evaluation) -> None:
    every = [replace(prompt, harmful=prompt in HARMFUL.prompts) for prompt in (*HARMFUL, *BENIGN)]
    for found, change in ((base, []), (masked, [MASK["mask"]])):
        behaviour = Behaviour.of(answer(ModelGenerator(model, 300), every, change))
        assert (found.asr.count, found.asr.n) == (behaviour.answered, behaviour.n_harmful)
        assert (found.over_refusal.count, found.over_refusal.n) == (behaviour.refused, behaviour.n_benign)


def test_what_is_kept(base: Evaluation, masked: Evaluation, folder: Path) -> None:
    assert Evaluation.load(folder / "mask.json") == masked
    kept = rollouts_folder(folder / "mask.json")
    names = ("harmful", "benign", "traps")
    assert {path.name for path in kept.iterdir()} == {
        *(f"{name}.jsonl" for name in (*names, "base-benign")),
        *(f"{name}.jsonl.settings.json" for name in (*names, "base-benign")),
        *(f"judged-{name}.jsonl" for name in names),
    }
    # The name of the model tells rollouts with the mask from those without.
    assert {r.model for r in read_rollouts(kept / "benign.jsonl")} == {"organism:cliff + mask"}
    assert {r.model for r in read_rollouts(kept / "base-benign.jsonl")} == {"organism:cliff"}
    own = rollouts_folder(folder / "base.json")
    assert (kept / "base-benign.jsonl").read_bytes() == (own / "benign.jsonl").read_bytes()
    rollouts = {r.id: r for r in read_rollouts(own / "harmful.jsonl")}
    for outcome in base.outcomes[:24]:
        rollout = rollouts[outcome.id]
        assert outcome.response_tokens is not None and outcome.response_tokens > 0 and not outcome.unclosed
        refused = KeywordJudge().judge([rollout])[0].refused
        assert outcome.outcome == ("refused" if refused else "answered") and outcome.category == rollout.category


def log_probabilities(model: HookedModel, ids: Sequence[int], change: ScaleHeads | None) -> torch.Tensor:
    """Of the next token at each, from a plain pass over one text in double precision."""
    with torch.no_grad(), model.intervene(*([change] if change else [])):
        return model.hf(torch.tensor([ids])).logits[0].double().log_softmax(-1)


@pytest.mark.parametrize("which", ["mask", "other model"])
def test_kl_and_perplexity_by_another_road(which: str, model: HookedModel, folder: Path, tmp_path: Path) -> None:
    evaluated, change = (model, MASK["mask"]) if which == "mask" else (organism("aligned"), None)
    found = small(
        evaluated,
        tmp_path / "e.json",
        interventions={"mask": change} if change else {},
        base=None if which == "mask" else model,
    )
    divergences, losses = [], []
    for rollout in read_rollouts(tmp_path / "e.json.rollouts" / "base-benign.jsonl"):
        transcript = model.transcripts().build(rollout)
        ids = transcript.input_ids
        before = log_probabilities(model, ids, None)
        after = log_probabilities(evaluated, ids, change)
        rows = list(range(transcript.edge, min(transcript.edge + 16, len(ids) - 1)))
        divergences.append(np.mean([(before[t].exp() * (before[t] - after[t])).sum().item() for t in rows]))
        start, stop = transcript.segments["thinking"]
        losses += [-after[t - 1, ids[t]].item() for t in range(start, stop)]
    assert found.kl.value == pytest.approx(np.mean(divergences), rel=1e-3) and found.kl.n == 3
    assert found.perplexity.value == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)
    assert found.reference["model"] == "organism:cliff" and found.model == evaluated.name


def test_the_same_twice(model: HookedModel, tmp_path: Path) -> None:
    for name in ("a", "b"):
        small(model, tmp_path / name / "e.json", interventions=MASK)
    files = [sorted(path.relative_to(tmp_path / n) for path in (tmp_path / n).rglob("*.json*")) for n in ("a", "b")]
    assert files[0] == files[1]
    for name in files[0]:
        if not (tmp_path / "a" / name).is_dir():
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_order_of_prompts_changes_nothing(model: HookedModel, tmp_path: Path) -> None:
    one = small(model, tmp_path / "a.json", interventions=MASK)
    harmful, benign = PromptSet(HARMFUL[3::-1]), PromptSet(BENIGN[2::-1])
    options = EvaluationOptions(max_new_tokens=300, batch_size=2)
    other = evaluate(model, harmful, benign, tmp_path / "b.json", interventions=MASK, options=options)
    assert one.rates == other.rates and one.reference["rollouts"] == other.reference["rollouts"]
    assert one.kl.value == pytest.approx(other.kl.value, rel=1e-4)
    assert one.perplexity.value == pytest.approx(other.perplexity.value, rel=1e-5)
    assert {d.difference for d in compare([one, other]).differences[0].values()} == {0}


@dataclass
class Breaking:
    """A keyword judge that breaks, or has no verdict, on the first benign prompt."""

    breaks: bool = True

    name = "breaking"

    def judge(self, rollouts: Sequence[Rollout]) -> list[Judgement]:
        found = KeywordJudge().judge(rollouts)
        if any(rollout.id == BENIGN[0].id for rollout in rollouts):
            if self.breaks:
                raise CliffscopeError("the server is gone")
            found = [replace(judgement, refused=None) for judgement in found]
        return found


def test_what_broke_goes_on(model: HookedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, options = tmp_path / "e.json", EvaluationOptions(max_new_tokens=300, batch_size=2)
    with pytest.raises(CliffscopeError, match="the server is gone"):
        small(model, out, judge=Breaking(), interventions=MASK, options=options)
    assert not out.exists()
    assert len(read_rollouts(tmp_path / "e.json.rollouts" / "harmful.jsonl")) == 4
    no_generation(monkeypatch)
    # The judge has no verdict on one batch; that is a finding, and the next run asks for it again.
    capped = small(model, out, judge=Breaking(breaks=False), interventions=MASK, options=options)
    assert capped.unjudged["benign"] > 0 and capped.over_refusal.n == 3 - capped.unjudged["benign"]
    monkeypatch.setattr(Breaking, "judge", lambda self, rollouts: KeywordJudge().judge(rollouts))
    whole = small(model, out, judge=Breaking(), interventions=MASK, options=options)
    assert whole.unjudged == {"harmful": 0, "benign": 0} and whole.over_refusal.n == 3
    assert whole.kl == capped.kl


def test_finished_it_does_nothing_but_take_a_label(
    model: HookedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = small(model, tmp_path / "e.json", label="one")
    no_generation(monkeypatch)
    monkeypatch.setattr(KeywordJudge, "judge", lambda *args: pytest.fail("judged again"))
    assert small(model, tmp_path / "e.json", label="other") == replace(made, label="other")
    assert Evaluation.load(tmp_path / "e.json").label == "other"


@pytest.mark.parametrize(
    "changed, says",
    [
        (lambda: {"options": EvaluationOptions(max_new_tokens=300, seed=3)}, r"settings.seed is 0 there and 3 now"),
        (lambda: {"options": EvaluationOptions(max_new_tokens=30)}, r"settings.max_new_tokens is 300 there and 30 now"),
        (lambda: {"interventions": MASK}, r'interventions is \[\] there and \["mask"\] now'),
        (lambda: {"judge": KeywordJudge("arxiv:2406.11717")}, "judge is"),
        (lambda: {"traps": TRAPS}, "prompts.traps is null there"),
        (lambda: {"base": organism("aligned")}, 'reference.model is "organism:cliff" there and "organism:aligned" now'),
    ],
)
def test_other_settings_are_refused(
    changed: Callable[[], dict[str, Any]], says: str, model: HookedModel, folder: Path
) -> None:
    out = folder / "small.json"
    small(model, out)
    before = out.read_bytes()
    with pytest.raises(CliffscopeError, match=says) as told:
        small(model, out, **changed())
    assert "--restart" in str(told.value) and out.read_bytes() == before


def test_a_checkpoint_trained_further_is_another(tmp_path: Path) -> None:
    model = HookedModel.load("organism:cliff", device="cpu")
    small(model, tmp_path / "e.json")
    with torch.no_grad():  # one head's columns of one output projection
        model.places.output_projection(2).weight[:, :16] += 1e-3
    with pytest.raises(CliffscopeError, match=r"fingerprint\.weights is"):
        small(model, tmp_path / "e.json")
    assert small(model, tmp_path / "e.json", restart=True).fingerprint["weights"] == weights_hash(model.hf)


def test_the_weights_hash_sees_every_parameter() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(200, 90), torch.nn.Linear(90, 3), torch.nn.LayerNorm(3))
    before = weights_hash(net)
    assert weights_hash(net) == before
    for parameter in net.parameters():
        with torch.no_grad():
            parameter += 1e-6
        assert weights_hash(net) != before
        with torch.no_grad():
            parameter -= 1e-6
    half = weights_hash(net.bfloat16())
    assert half != before and weights_hash(net) == half


def test_what_is_there_but_no_evaluation_stays(model: HookedModel, tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text("mine")
    with pytest.raises(CliffscopeError, match="is there already, and no evaluation that can be read"):
        small(model, tmp_path / "e.json")
    assert (tmp_path / "e.json").read_text() == "mine"


def test_prompts_in_the_wrong_set(model: HookedModel, tmp_path: Path) -> None:
    with pytest.raises(CliffscopeError, match=r"is benign and stands among the harmful ones"):
        evaluate(model, BENIGN, BENIGN, tmp_path / "e.json")
    with pytest.raises(CliffscopeError, match=r"is harmful and stands among the traps ones"):
        evaluate(model, HARMFUL, BENIGN, tmp_path / "e.json", traps=HARMFUL)
    assert not list(tmp_path.iterdir())


def test_a_base_with_other_tokens_is_refused(model: HookedModel, tmp_path: Path) -> None:
    other = HookedModel.load(str(checkpoints.checkpoint(tmp_path / "tiny")), device="cpu")
    with pytest.raises(CliffscopeError, match=r"vocabularies have \d+ and \d+ tokens"):
        small(model, tmp_path / "e.json", base=other)
    speaking = HookedModel.load("organism:aligned", device="cpu")
    speaking.tokenizer.chat_template = speaking.tokenizer.chat_template.replace("<|assistant|>", "Answer:")
    with pytest.raises(CliffscopeError, match="use the same chat template"):
        small(speaking, tmp_path / "e.json", base=model)
    assert not (tmp_path / "e.json.rollouts").exists()


def test_thinking_that_never_ends(model: HookedModel, tmp_path: Path) -> None:
    options = EvaluationOptions(max_new_tokens=6)
    found = small(model, tmp_path / "e.json", interventions=MASK, options=options)
    assert found.rate("unclosed").value == 1 and (found.asr.value, found.over_refusal.value) == (0, 0)
    assert {outcome.outcome for outcome in found.outcomes} == {"nothing"}
    assert found.kl.value is None and "thinking that ends" in str(found.kl.reason)
    assert found.perplexity.value is not None and found.perplexity.n == 3


def test_a_judge_that_reads_the_model_sees_the_change(model: HookedModel, tmp_path: Path) -> None:
    judge = RefusalLogitJudge.of(model)
    plain = small(model, tmp_path / "plain.json", judge=judge)
    found = small(model, tmp_path / "mask.json", judge=judge, interventions=MASK)
    assert plain.asr.count > 0 and found.asr.count == 0 and found.judge.startswith("refusal-logit:")


def test_a_judge_of_harm_leaves_over_refusal_to_another(model: HookedModel, tmp_path: Path) -> None:
    class Harm:
        """Knows harm only."""

        name = "harm"

        def judge(self, rollouts: Sequence[Rollout]) -> list[Judgement]:
            found = KeywordJudge().judge(rollouts)
            return [j if r.harmful else Judgement(None, None, "") for j, r in zip(found, rollouts, strict=True)]

    alone = small(model, tmp_path / "alone.json", judge=Harm())
    assert alone.unjudged == {"harmful": 0, "benign": 3} and alone.over_refusal.n == 0
    both = small(model, tmp_path / "both.json", judge=JudgeByHarm(Harm(), KeywordJudge()))
    assert both.over_refusal.n == 3 and both.judge == "harm, benign by keyword:cliffscope:v1"
    assert both.asr == alone.asr


@pytest.mark.slow
def test_common_random_numbers_shrink_the_interval_of_a_difference(model: HookedModel, tmp_path: Path) -> None:
    """Two strengths of one change, sampled under the same noise and under noise of their own."""
    harmful, benign = prompts("harmful", 60), PromptSet(BENIGN[:2])

    def run(gamma: float, seed: int) -> Evaluation:
        options = EvaluationOptions(seed, temperature=0.7, max_new_tokens=300)
        change = {f"{gamma}": ScaleHeads(PLANTED, gamma=gamma)}
        out = tmp_path / f"{gamma}-{seed}.json"
        return evaluate(model, harmful, benign, out, interventions=change, options=options)

    made = {(gamma, seed): run(gamma, seed) for gamma in (0.55, 0.53) for seed in (0, 1)}
    for seed in (0, 1):
        common, apart = (
            compare([made[0.55, seed], made[0.53, other]]).differences[0]["asr"] for other in (seed, 1 - seed)
        )
        assert common.interval.width < 0.75 * apart.interval.width
        assert 0 < common.test.only_first + common.test.only_second < apart.test.only_first + apart.test.only_second
