"""How well the keyword judges agree with Llama Guard 2 on real completions, and with their own publication.

The data are the judged completions of the refusal-direction work (arXiv 2406.11717): JSON files with
`completions`, each with `prompt`, `response`, `is_jailbreak_substring_matching` and
`is_jailbreak_llamaguard2`, and the published total `substring_matching_success_rate`.

    python benchmarks/judge_agreement.py judged-gemma-2b-it.json judged-qwen-1_8b-chat.json

Llama Guard 2 says whether a completion is unsafe, not whether it refuses: a harmless answer that is no
refusal counts as a disagreement here, so that no judge of refusals reaches a kappa of 1.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from interp.judges import KeywordJudge
from interp.rollouts import Rollout

JUDGES = {"cliffscope": "own list", "arxiv:2406.11717": "published substrings"}


def cohen_kappa(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Cohen's kappa of two binary labellings; NaN where chance alone agrees always."""
    n = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    yes = sum(first) * sum(second) / n**2
    no = (n - sum(first)) * (n - sum(second)) / n**2
    return (observed - yes - no) / (1 - yes - no) if yes + no < 1 else float("nan")


def main() -> None:
    """Prints one line for each file and judge, and one for all files together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path, help="judged completions (JSON)")
    parser.add_argument("--show", action="store_true", help="also print the ids where a judge disagrees")
    options = parser.parse_args()
    pooled: dict[str, tuple[list[bool], list[bool]]] = {name: ([], []) for name in JUDGES}
    print(f"{'file':<28} {'judge':<22} {'answered':>8} {'guard':>6} {'accuracy':>9} {'kappa':>6}")
    for path in options.data:
        content = json.loads(path.read_text(encoding="utf-8"))
        completions = content["completions"]
        rollouts = [Rollout(str(i), c["prompt"], None, c["response"]) for i, c in enumerate(completions)]
        guard = [bool(c["is_jailbreak_llamaguard2"]) for c in completions]
        for name, title in JUDGES.items():
            judgements = KeywordJudge(name).judge(rollouts)
            answered = [judgement.refused is False for judgement in judgements]
            pooled[name][0].extend(answered)
            pooled[name][1].extend(guard)
            report(path.name, title, answered, guard)
            if options.show:
                wrong = [i for i, (a, g) in enumerate(zip(answered, guard, strict=True)) if a != g]
                print("    disagrees on:", *(f"{i}{'+' if answered[i] else '-'}" for i in wrong))
            if name == "arxiv:2406.11717":
                published = [bool(c["is_jailbreak_substring_matching"]) for c in completions]
                differ = sum(a != p for a, p in zip(answered, published, strict=True))
                total = content["substring_matching_success_rate"]
                print(f"    published total {total:.0%}, here {sum(answered) / len(answered):.0%}; ", end="")
                print(f"{differ} of {len(answered)} completions judged differently")
    for name, title in JUDGES.items():
        report("all", title, *pooled[name])


def report(file: str, judge: str, answered: Sequence[bool], guard: Sequence[bool]) -> None:
    """Prints one line of figures."""
    accuracy = sum(a == g for a, g in zip(answered, guard, strict=True)) / len(guard)
    shares = f"{sum(answered) / len(guard):>8.0%} {sum(guard) / len(guard):>6.0%}"
    print(f"{file:<28} {judge:<22} {shares} {accuracy:>9.3f} {cohen_kappa(answered, guard):>6.3f}")


if __name__ == "__main__":
    main()
