"""How well a latent guard tells harmful from benign prompts that its model was never trained on.

    python benchmarks/guard_prompts.py --model organism:cliff --harmful HARMFUL --benign BENIGN

Fits a guard by each method on generated prompts of the organisms' own kind (--train N of each class, of the side that
they were trained on), and one on the prompts given, and says of the prompts given: AUROC, harmful ones missed and
benign ones flagged. The second guard is judged on prompts that were held out. Two files are two corpora: what tells
them apart may be the corpus.
"""

import argparse

from interp.cli.session import open_model
from interp.organisms.prompt_set import as_prompt_set
from interp.organisms.prompts import sample_prompts
from interp.rollouts.prompts import Prompt, load_prompts
from probes.guard import GuardFigures, GuardOptions, confounded, fit_guard
from probes.guard.readers import METHODS


def main() -> None:
    """Prints two lines a method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="organism:cliff")
    parser.add_argument("--harmful", required=True, help="harmful prompts: a file, or a dataset id")
    parser.add_argument("--benign", required=True, help="benign prompts")
    parser.add_argument("--train", type=int, default=600, help="generated prompts of each class to fit on")
    parser.add_argument("--limit", type=int, default=None, help="only the first so many of each file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = open_model(options.model, "auto", "auto")
    given = [
        *load_prompts(options.harmful, harmful=True, limit=options.limit),
        *load_prompts(options.benign, harmful=False, limit=options.limit),
    ]
    generated = list(
        as_prompt_set(
            prompt
            for kind in ("harmful", "benign")
            for prompt in sample_prompts(kind, options.train, options.seed, split="train")
        )
    )
    print(f"{options.model}: {sum(bool(p.harmful) for p in given)} harmful and "
          f"{sum(not p.harmful for p in given)} benign prompts; {confounded(given)}")  # fmt: skip
    for method in METHODS:
        chosen = GuardOptions(method, seed=options.seed, folds=8)
        fitted = fit_guard(model, generated, chosen)
        scores = fitted.guard.score(model, given)
        carried = GuardFigures.of(given, scores, scores > fitted.guard.threshold)
        own = fit_guard(model, without_categories(given), chosen)
        layers = ", ".join(map(str, fitted.guard.layers))
        held = told(fitted.held_out)
        print(f"{method}, fitted on generated prompts (layers {layers}; held-out categories: {held}): {told(carried)}")
        layers = ", ".join(map(str, own.guard.layers))
        print(f"{method}, fitted on the prompts given (layers {layers}), held-out prompts: {told(own.held_out)}")


def without_categories(prompts: list[Prompt]) -> list[Prompt]:
    """The same prompts, so that prompts and not categories are held out."""
    return [Prompt(prompt.id, prompt.text, prompt.harmful, None, prompt.source) for prompt in prompts]


def told(figures: GuardFigures) -> str:
    """The figures in one line."""
    shares = [
        f"{words} {found['rate']:.1%} [{found['low']:.3f}, {found['high']:.3f}]"
        for words, found in (("missed", figures.errors(True)), ("flagged benign", figures.errors(False)))
    ]
    return f"AUROC {figures.auroc:.3f} {figures.auroc_interval}, {', '.join(shares)}"


if __name__ == "__main__":
    main()
