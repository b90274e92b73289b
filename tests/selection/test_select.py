"""The whole way from a pool to a file of examples: what it writes and says, and what it chooses on the organism."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from interp.errors import CliffscopeError
from interp.judges import KeywordJudge
from interp.organisms import truth
from interp.rollouts.endpoint import Endpoint
from selection.choice import ChoiceOptions, Method
from selection.examples import FORMATS, Format, read_examples
from selection.select import Selection, SelectOptions, default_scores_path, manifest_path, select
from selection.targets import refusal, refusals, safe_system_prompt
from tests.circuits.material import organism, organism_probe, organism_rollouts
from tests.interp.rollouts.test_endpoint import Answer, Serve, chat, serve
from tests.selection.material import organism_pool, row_of, write_pool

__all__ = ["serve"]  # the fixture


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of 64 with rollouts, a probe, and scores that all tests share."""
    made = tmp_path_factory.mktemp("selection")
    organism_pool(made / "pool.jsonl")
    organism_probe("cliff").save(made / "probe.safetensors")
    return made


def run(folder: Path, out: Path, method: Method = "cliff", count: int = 8, **options: Any) -> Selection:
    scores, pool = options.pop("scores", folder / "scores.jsonl"), options.pop("pool", folder / "pool.jsonl")
    also = {key: options.pop(key) for key in ("judge", "endpoint", "restart") if key in options}
    choice = {key: options.pop(key) for key in ("spread", "deduplicate", "harmful_only", "seed") if key in options}
    return select(
        organism("cliff"),
        folder / "probe.safetensors",
        pool,
        out,
        SelectOptions(ChoiceOptions(method, count=count, **choice), **{"target": "own-thinking", **options}),
        scores=scores,
        **also,
    )


def planted(selection: Selection) -> float:
    """The share of complied prompts of the planted categories: what a repair needs."""
    wanted = set(truth("cliff")["categories"])
    chosen = selection.choice.scores
    return sum(score.outcome == "complied" and score.category in wanted for score in chosen) / len(chosen)


def test_the_cliff_finds_what_was_planted_and_chance_does_not(folder: Path, tmp_path: Path) -> None:
    found = {method: planted(run(folder, tmp_path / "s.jsonl", method)) for method in ("cliff", "random", "length")}  # type: ignore[arg-type]
    assert found["cliff"] >= 0.85
    assert max(found["random"], found["length"]) <= 0.6


def test_every_line_says_what_and_why(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.jsonl"
    found = run(folder, out)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["rank"] for row in rows] == list(range(1, 9))
    own = {rollout.id: rollout for rollout in organism_rollouts("cliff")}
    for row, item, score in zip(rows, found.examples, found.choice.scores, strict=True):
        assert (row["id"], row["cliff"], row["plateau"], row["edge"]) == (
            score.id,
            score.cliff,
            score.plateau,
            score.edge,
        )
        assert (
            row["reason"]
            == item.reason
            == f"cliff {row['cliff']:.2f}: plateau {row['plateau']:.2f}, edge " + (f"{row['edge']:.2f}")
        )
        user, assistant = row["messages"]
        assert user["content"] == own[row["id"]].prompt
        expected = f"<think>\n{own[row['id']].thinking}\n</think>\n\n{refusal(row['id'])}"
        assert score.harmful and assistant["content"] == expected
    assert [row["cliff"] for row in rows] == sorted((row["cliff"] for row in rows), reverse=True)


def test_the_manifest(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.jsonl"
    found = run(folder, out, deduplicate=0.9)
    manifest = json.loads(manifest_path(out).read_text(encoding="utf-8"))
    assert manifest == found.manifest and manifest["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert manifest["model"] == {"name": "organism:cliff", "fingerprint": organism("cliff").fingerprint}
    for name, file in (("pool", "pool.jsonl"), ("probe", "probe.safetensors")):
        assert manifest[name]["file"] == file
        assert manifest[name]["sha256"] == hashlib.sha256((folder / file).read_bytes()).hexdigest()
    assert manifest["options"]["deduplicate"] == 0.9 and manifest["options"]["method"] == "cliff"
    counts = manifest["counts"]
    assert (counts["pool"], counts["labels"], counts["rollouts_given"]) == (64, {"benign": 32, "harmful": 32}, 64)
    assert sum(counts["outcomes"].values()) == 64 and counts["asked"] == counts["selected"] == 8
    assert sum(counts["selected_categories"].values()) == 8
    assert {"python", "torch", "transformers", "cliffscope"} == set(manifest["versions"])
    assert manifest["chat_template_keeps_thinking"] is True and manifest["answers"] is None


@pytest.mark.parametrize("format", FORMATS)
def test_it_is_read_back(format: Format, folder: Path, tmp_path: Path) -> None:
    found = run(folder, tmp_path / "s.jsonl", format=format)
    assert read_examples(tmp_path / "s.jsonl", organism("cliff").chat) == [item.example for item in found.examples]


def test_benign_prompts_are_never_taught_to_be_refused(folder: Path, tmp_path: Path) -> None:
    found = run(folder, tmp_path / "s.jsonl", "random", 64)
    own = {rollout.id: rollout for rollout in organism_rollouts("cliff")}
    for item in found.examples:
        if item.example.harmful:
            assert item.example.response in refusals()
        else:
            assert item.example.response == own[item.example.id].response
    assert found.manifest["counts"]["targets"] == {"own answer": 32, "refusal after own thinking": 32}


def test_targets_of_the_pool(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CliffscopeError, match=r"pool.jsonl: 32 of 64 examples have no target_response"):
        run(folder, tmp_path / "s.jsonl", target="pool", scores=tmp_path / "new.jsonl")
    assert not list(tmp_path.iterdir())
    pool = organism_pool(tmp_path / "pool.jsonl", 16, target_response="I'd rather not.", target_thinking="Hm.")
    found = run(folder, tmp_path / "s.jsonl", target="pool", pool=pool, scores=tmp_path / "new.jsonl")
    assert {(item.example.thinking, item.example.response) for item in found.examples} == {("Hm.", "I'd rather not.")}


def test_an_unlabelled_mixed_pool_is_ranked_all_the_same(folder: Path, tmp_path: Path) -> None:
    rollouts = organism_rollouts("cliff")[:32] + organism_rollouts("cliff")[64:96]
    pool = write_pool(tmp_path / "p.jsonl", [row_of(replace(r, harmful=None, category=None)) for r in rollouts])
    scores = tmp_path / "scores.jsonl"
    found = run(folder, tmp_path / "s.jsonl", pool=pool, scores=scores)
    labelled = run(folder, tmp_path / "t.jsonl")
    assert [s.id for s in found.choice.scores] == [s.id for s in labelled.choice.scores]
    assert found.manifest["counts"]["targets"]["of these for prompts without a label"] == 8


def test_other_methods_share_the_scores(folder: Path, tmp_path: Path) -> None:
    def files() -> Sequence[int]:
        return [path.stat().st_mtime_ns for path in (folder / "scores.jsonl", folder / "probe.safetensors")]

    run(folder, tmp_path / "a.jsonl")
    before = files()
    for method in ("random", "edge", "plateau", "keyword", "length"):
        assert len(run(folder, tmp_path / "b.jsonl", method).examples) == 8  # type: ignore[arg-type]
    assert files() == before


def test_judge_and_loss(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CliffscopeError, match="method judge: give a judge"):
        run(folder, tmp_path / "s.jsonl", "judge")
    found = run(folder, tmp_path / "s.jsonl", "judge", judge=KeywordJudge(), scores=tmp_path / "judged.jsonl")
    same = run(folder, tmp_path / "t.jsonl", "keyword")
    assert [s.id for s in found.choice.scores] == [s.id for s in same.choice.scores]
    assert found.manifest["options"]["judge"] == KeywordJudge().name
    found = run(folder, tmp_path / "s.jsonl", "loss", scores=tmp_path / "losses.jsonl")
    losses = [score.loss or 0.0 for score in found.choice.scores]
    assert losses == sorted(losses, reverse=True) and losses[-1] > 0


def test_an_endpoint_gives_safe_answers_once(serve: Serve, folder: Path, tmp_path: Path) -> None:
    def script(body: dict[str, Any], number: int) -> Answer:
        assert [message["role"] for message in body["messages"]] == ["system", "user"]
        assert body["messages"][0]["content"] == safe_system_prompt()
        prompt = body["messages"][1]["content"]
        if number == 0:
            return chat("<think>\nendless")
        return chat("Sure!" if number == 1 else f"<think>\nHm.\n</think>\n\nI'm sorry, no help with: {prompt}")

    server = serve(script)

    def again() -> Selection:
        endpoint = Endpoint(server.url, model="safe", concurrency=1)
        return run(folder, tmp_path / "s.jsonl", target="endpoint", endpoint=endpoint)

    found = again()
    own = {rollout.id: rollout for rollout in organism_rollouts("cliff")}
    assert len(found.examples) == 7 and [item.rank for item in found.examples] == list(range(1, 8))
    for item in found.examples:
        example = item.example
        assert example.thinking == own[example.id].thinking
        assert example.response in ("Sure!", f"I'm sorry, no help with: {example.prompt}")
    said = found.manifest["answers"]
    assert (said["asked"], said["without_answer"], said["not_refused_by_keywords"]) == (8, 1, 1)
    assert said["model"] == "safe" and (tmp_path / said["file"]).is_file()
    # Asked again, the server is not: what it said is kept.
    assert again().examples == found.examples and len(server.requests) == 8
    # With other settings it is asked again only when told to.
    other = {"target": "endpoint", "endpoint": Endpoint(server.url, model="other", concurrency=1)}
    with pytest.raises(CliffscopeError, match=r"made with other settings .settings.model is"):
        run(folder, tmp_path / "s.jsonl", **other)
    scores = tmp_path / "scores.jsonl"
    assert len(run(folder, tmp_path / "s.jsonl", **other, restart=True, scores=scores).examples) == 8
    with pytest.raises(CliffscopeError, match="target endpoint: give an endpoint"):
        run(folder, tmp_path / "s.jsonl", target="endpoint")


def test_generated_or_given_the_choice_is_the_same(folder: Path, tmp_path: Path) -> None:
    rollouts = organism_rollouts("cliff")[:12] + organism_rollouts("cliff")[64:68]
    found = []
    for own in (True, False):
        pool = write_pool(tmp_path / f"{own}.jsonl", [row_of(rollout, own) for rollout in rollouts])
        made = select(
            organism("cliff"),
            folder / "probe.safetensors",
            pool,
            tmp_path / f"{own}-s.jsonl",
            SelectOptions(ChoiceOptions(fraction=0.25), target="own-thinking", max_new_tokens=400, batch_size=5),
        )
        found.append([(item.example, item.rank) for item in made.examples])
        assert default_scores_path(made.path).is_file()
    assert found[0] == found[1] and len(found[0]) == 4
