"""The bug zoo: the reference pipeline with one planted bug each, the proof that the assertions can fail.

Every mutant is one small module that changes one thing of a worker of `pipelines_under_test.kappa` and runs it; its
docstring tells the bug and where such bugs live. `registry.py` says which assertion must catch it, in which scenario.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines_under_test.mutants.registry import MUTANTS, RELEASE_MUTANTS, SOAK_MUTANTS, Mutant

__all__ = ["MUTANTS", "RELEASE_MUTANTS", "SOAK_MUTANTS", "Mutant"]


def __getattr__(name: str) -> Any:
    """The registry, when it is asked for: it imports the harness, and the mutants, being workers, must not."""
    if name in __all__:
        from pipelines_under_test.mutants import registry

        return getattr(registry, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
