"""`import interp` is light, and every name that it offers exists."""

import subprocess
import sys

import interp
import probes

HEAVY = ("torch", "transformers", "transformer_lens", "nnsight", "sae_lens", "trl", "plotly", "pandas", "datasets")


def test_import_interp_imports_nothing_heavy() -> None:
    code = f"import sys, interp; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_offered_names_exist() -> None:
    for package in (interp, probes):
        for name in package.__all__:
            assert getattr(package, name).__name__ == name


def test_imports_point_one_way() -> None:
    """interp ← probes ← interventions ← circuits ← selection; only the command line may look upward."""
    import ast
    from pathlib import Path

    order = ["interp", "probes", "interventions", "circuits", "selection"]
    root = Path(__file__).parents[2]
    checked = 0
    for rank, package in enumerate(order):
        for path in (root / package).rglob("*.py"):
            if path.is_relative_to(root / "interp" / "cli"):
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                upward = [name for name in names if name.split(".")[0] in order[rank + 1 :]]
                assert not upward, f"{path}: imports {upward}"
                checked += len(names)
    assert checked > 100
