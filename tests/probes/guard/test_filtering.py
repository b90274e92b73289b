"""A guard in front of a generator: what it stops never reaches the model."""

from dataclasses import replace

import pytest

from interp.errors import CliffscopeError
from interp.judges import KeywordJudge, judged
from interp.rollouts.model_generator import ModelGenerator
from interp.rollouts.prompts import Prompt
from interp.rollouts.rollout import GUARD
from interventions import ScaleHeads
from interventions.directions import examples_of
from probes.examples import Examples
from probes.guard import REFUSAL, GuardedGenerator, fit_guard
from probes.guard.fitting import GuardOptions
from tests.circuits.material import organism, organism_rollouts
from tests.probes.guard.material import prompts


@pytest.fixture(scope="module")
def guarded() -> tuple[GuardedGenerator, list[Prompt]]:
    guard = fit_guard(organism("cliff"), prompts(), GuardOptions(folds=4)).guard
    some = [*prompts()[:12], *prompts()[150:162]]
    return GuardedGenerator.of(ModelGenerator(organism("cliff"), 200), guard, some), some


def test_harmful_prompts_are_stopped_and_the_others_are_the_models_own(
    guarded: tuple[GuardedGenerator, list[Prompt]],
) -> None:
    generator, some = guarded
    mixed = some[::2] + some[1::2]
    found = judged(generator.generate(mixed), KeywordJudge())
    assert [r.id for r in found] == [p.id for p in mixed]
    for rollout in found:
        assert rollout.by_guard == (rollout.id in generator.stopped) == bool(rollout.harmful)
        assert (rollout.response == REFUSAL) == rollout.by_guard
    assert {r.outcome for r in found if r.by_guard} == {"refused"}
    alone = {r.id: r for r in generator.generator.generate([p for p in some if not p.harmful])}
    for rollout in found:
        if not rollout.by_guard:
            assert replace(rollout, refused=None) == alone[rollout.id]


def test_a_stopped_rollout_can_be_read_and_has_no_edge(guarded: tuple[GuardedGenerator, list[Prompt]]) -> None:
    """Nothing that the model never wrote is taken for its thinking."""
    generator, some = guarded
    stopped = generator.generate(some[:2])
    for transcript, rollout in zip(organism("cliff").transcripts().build_all(stopped), stopped, strict=True):
        transcript.position("inst")
        if rollout.thinking is None:
            with pytest.raises(CliffscopeError, match="no thinking"):
                transcript.position("close:-1")


def test_all_and_none_stopped(guarded: tuple[GuardedGenerator, list[Prompt]]) -> None:
    generator, some = guarded
    everything = replace(generator, stopped=frozenset(p.id for p in some))
    assert all(r.by_guard for r in everything.generate(some))
    nothing = GuardedGenerator.of(generator.generator, replace(generator.guard, threshold=9.0), some)
    assert not nothing.stopped and not any(r.by_guard for r in nothing.generate(some[:2]))


def test_settings_tell_the_guard(guarded: tuple[GuardedGenerator, list[Prompt]]) -> None:
    generator, _ = guarded
    other = replace(generator, guard=replace(generator.guard, threshold=0.5))
    assert other.settings["guard"] != generator.settings["guard"]
    assert {key: value for key, value in other.settings.items() if key != "guard"} == generator.generator.settings


def test_the_guard_reads_the_model_as_it_is_when_made(guarded: tuple[GuardedGenerator, list[Prompt]]) -> None:
    """An intervention that is active while generating does not move what was stopped."""
    generator, some = guarded
    with organism("cliff").intervene(ScaleHeads([(3, 1), (4, 5)], gamma=0.0)):
        assert [r.by_guard for r in generator.generate(some)] == [bool(p.harmful) for p in some]


def test_nothing_is_fitted_on_what_a_guard_wrote() -> None:
    """With thinking that is closed at once a stopped rollout has an edge that the model never wrote."""
    own = organism_rollouts("cliff")
    stopped = [
        replace(r, id=f"{r.id}-stopped", thinking="", model=f"{GUARD}0123") for r in own if r.outcome == "refused"
    ]
    for some in (
        Examples.of(organism("cliff"), [*own, *stopped], ["close:-1"]),
        examples_of(organism("cliff"), [*own, *stopped], "refused-complied", ["close:-1"]),
    ):
        assert some.skipped["stopped by a guard"] == len(stopped) > 0
        assert not any(rollout.by_guard for rollout in some.rollouts)
