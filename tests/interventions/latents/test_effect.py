"""What the best latent does, beside 20 random ones: the refusal logit at the edge, and the answers."""

import numpy as np
import pytest
from jaxtyping import Float

from interp.judges.edge_logit import RefusalLogitJudge
from interp.rollouts.model_generator import ModelGenerator
from interp.significance import sign_flip_p
from interventions.behaviour import Behaviour, answer, prompts_of
from interventions.latents import AblateLatents, ClampLatents, Latents, intervene_latents, rank_latents, untrained_like
from interventions.latents.acting import LatentsIdleError
from interventions.latents.changes import LatentChange
from tests.interventions.latents.material import (
    OPTIONS,
    SITE,
    organism,
    organism_rollouts,
    ranked,
    trained,
    training_rollouts,
)

N_RANDOM = 20


def best() -> tuple[int, float]:
    """The first latent that is active where the model refuses, and how active it is there."""
    row = ranked().table.query("sign == 1").iloc[0]
    return int(row["latent"]), float(row["mean_positive"])


def others() -> list[int]:
    rest = [latent for latent in range(OPTIONS.width) if latent != best()[0]]
    return np.random.default_rng(0).choice(rest, N_RANDOM, replace=False).tolist()


def to_value(latent: int, latents: Latents | None = None) -> LatentChange:
    """A clamp whose decoded value is as long as that of the best latent where the model refuses, twice."""
    chosen, active = best()
    latents = latents or trained()
    length = float(trained().step(chosen).norm() / latents.step(latent).norm())
    return ClampLatents(latents, latent, 2 * active * length, scope="from-edge")


def untrained() -> Latents:
    """The control, as sparse at the edge of benign rollouts as the trained one."""
    model = organism("cliff")
    benign = [rollout for rollout in training_rollouts() if rollout.harmful is False]
    h = model.capture(model.transcripts().build_all(benign), [SITE], ["inst", "post_inst", "close:-2", "close:-1"])
    sample = h[SITE].flatten(0, 1)
    return untrained_like(trained(), sample, (trained().encode(sample) > 0).float().mean(0).numpy())


@pytest.mark.slow
def test_clamping_the_best_latent_moves_refusal_more_than_each_of_20_random_ones() -> None:
    model = organism("cliff")
    complied = [rollout for rollout in organism_rollouts("cliff") if rollout.outcome == "complied"]
    complied = sorted(complied, key=lambda rollout: len(rollout.thinking or ""))[:10]  # the quickest
    judge = RefusalLogitJudge.of(model)
    plain = np.array([judgement.score for judgement in judge.judge(complied)])

    def moved(latent: int, latents: Latents | None = None) -> float:
        with intervene_latents(model, to_value(latent, latents)):
            return float(np.mean([judgement.score for judgement in judge.judge(complied)] - plain))

    effect, random = moved(best()[0]), [moved(latent) for latent in others()]
    assert effect > max(abs(value) for value in random)
    assert effect > 4  # nats

    # What an untrained SAE's latents separate as well, they do not move as much.
    control = untrained()
    rows = rank_latents(model, control, training_rollouts(), shuffles=9).table.query("sign == 1")
    assert effect > max(moved(int(latent), control) for latent in rows["latent"][:3]) + 1

    generator = ModelGenerator(model, 120)
    prompts = prompts_of(complied)

    def answered(latent: int) -> float:
        return Behaviour.of(answer(generator, prompts, [to_value(latent)])).asr

    assert Behaviour.of(answer(generator, prompts)).asr == 1.0
    assert answered(best()[0]) <= 0.1
    assert answered(best()[0]) < min(answered(latent) for latent in others())


@pytest.mark.slow
def test_benign_prompts_are_answered_all_the_same() -> None:
    model = organism("cliff")
    benign = [rollout for rollout in organism_rollouts("cliff") if rollout.outcome == "benign"][:12]
    changed = Behaviour.of(answer(ModelGenerator(model, 160), prompts_of(benign), [to_value(best()[0])]))
    assert changed.refusal_benign <= 0.1 and changed.unclosed == 0


@pytest.mark.slow
def test_ablating_it_lowers_the_refusal_logit_where_the_model_refuses() -> None:
    model = organism("cliff")
    refused = [rollout for rollout in organism_rollouts("cliff") if rollout.outcome == "refused"]
    judge = RefusalLogitJudge.of(model)
    plain = np.array([judgement.score for judgement in judge.judge(refused)])

    def lowered(latent: int) -> Float[np.ndarray, " rollout"]:
        try:
            with intervene_latents(model, AblateLatents(trained(), latent, scope="from-edge")):
                return plain - np.array([judgement.score for judgement in judge.judge(refused)])
        except LatentsIdleError:  # active nowhere
            return np.zeros(len(refused))

    effect = lowered(best()[0])
    assert float(sign_flip_p(effect[:, None])[0]) < 0.01
    assert effect.mean() > max(abs(float(lowered(latent).mean())) for latent in others())
