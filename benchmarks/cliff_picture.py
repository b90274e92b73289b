"""The picture of the cliff in the README and the documentation, from a run of the demo.

    cliffscope demo --out runs/demo
    python benchmarks/cliff_picture.py runs/demo                # writes docs/images/cliff.png

Reads the run's rollouts and probe, and scores every token anew. The picture has no background, and ink that shows on
light and on dark pages.
"""

import argparse
from pathlib import Path

from interp import HookedModel, read_rollouts
from interp.display.static import png
from interp.files import write_atomically
from probes import LinearProbe, measure_cliff
from probes.cliff_figure import cliff_figure


def main() -> None:
    """Draws the mean trajectories of complied, refused and benign rollouts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the demo's folder")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "images" / "cliff.png")
    arguments = parser.parse_args()
    probe = LinearProbe.load(arguments.run / "probe.safetensors")
    model = HookedModel.load(probe.model or "organism:cliff", device="cpu")
    cliff = measure_cliff(model, probe, read_rollouts(arguments.run / "rollouts.jsonl"), by_layer=False)
    print(cliff.evidence)
    picture = png(cliff_figure(cliff))
    write_atomically(arguments.out, lambda partial: partial.write_bytes(picture))
    print(arguments.out)


if __name__ == "__main__":
    main()
