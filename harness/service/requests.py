"""What can be started, as the API takes it, and the ordinary command that each becomes.

Names are held against what there is, and every value stands behind its option (`--seed=7`), so that no text from outside
is ever taken for an option.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from harness.service.entries import ZOO
from harness.topology import UsageError, unknown

Backend = Literal["auto", "process", "docker"]
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
Name = Annotated[str, StringConstraints(pattern=_NAME)]


def is_name(text: str) -> bool:
    """Whether a schedule may be called that."""
    return re.fullmatch(_NAME, text) is not None


#: A name that `gauntlet list` prints, or module:attribute.
PipelineName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}(:[A-Za-z_][A-Za-z0-9_.]{0,99})?$")
]
VersionName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,199}(@[A-Za-z0-9_][A-Za-z0-9_./-]{0,199})?$")
]
#: As large as every reader of JSON reads it.
Seed = Annotated[int, Field(ge=0, le=2**53 - 1)]
Rate = Annotated[int, Field(ge=1, le=10_000_000)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunRequest(_Request):
    """`gauntlet run`."""

    kind: Literal["run"]
    scenario: Name = "kappa-under-fire"
    pipeline: PipelineName | None = None
    backend: Backend = "auto"
    seed: Seed | None = None
    rate: Rate | None = None
    seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None
    schedule: Literal["random", "none"] | None = None


class SoakRequest(_Request):
    """`gauntlet soak`. `resume`: the name of a soak's folder that goes on; all else is then as it was asked for."""

    kind: Literal["soak"]
    resume: Name | None = None
    pipeline: PipelineName | None = None
    backend: Backend = "auto"
    hours: Annotated[float, Field(gt=0, le=1000)] = 8.0
    cycle_seconds: Annotated[float, Field(ge=10, le=86_400)] = 60.0
    rate: Rate = 2_000
    seed: Seed = 7
    stop: bool = False


class CompareRequest(_Request):
    """`gauntlet compare`. `baseline`, `candidate`: pipelines as of a run, or those with @REF of a git repository."""

    kind: Literal["compare"]
    baseline: VersionName
    candidate: VersionName
    scenario: Name | None = None
    pairs: Annotated[int, Field(ge=1, le=1000)] | None = None
    seed: Seed | None = None
    rate: Rate | None = None
    seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None
    schedule: Literal["random", "none"] | None = None
    backend: Backend | None = None


class ZooRequest(_Request):
    """`gauntlet zoo`, in a folder of its own. No mutants: all of them; `healthy`: so many healthy runs instead."""

    kind: Literal["zoo"]
    mutants: Annotated[list[Name], Field(max_length=200)] = []
    healthy: Annotated[int, Field(ge=1, le=10_000)] | None = None
    backend: Backend = "auto"
    seed: Seed = 7


Request = Annotated[RunRequest | SoakRequest | CompareRequest | ZooRequest, Field(discriminator="kind")]


@cache
def catalog() -> dict[str, Any]:
    """What `gauntlet list --json` prints."""
    from harness.catalog import listing

    return listing()


def check_names(request: Request, store: Path) -> None:
    """Raises UsageError for a name that is none. What is named as module:attribute, the command itself looks for."""
    known = catalog()
    if isinstance(request, RunRequest):
        scenarios = [one["name"] for one in known["scenarios"]]
        if request.scenario not in scenarios:
            raise unknown("scenario", request.scenario, scenarios)
    pipeline = getattr(request, "pipeline", None)
    if pipeline is not None and ":" not in pipeline:
        pipelines = [one["name"] for kind in ("pipelines", "mutants") for one in known[kind]]
        if pipeline not in pipelines:
            raise unknown("pipeline", pipeline, pipelines)
    if isinstance(request, CompareRequest) and find_spec("harness.compare") is None:
        raise UsageError("This version of Gauntlet has no command 'compare'.")
    if isinstance(request, ZooRequest):
        mutants = [one["name"] for one in known["mutants"]]
        for name in request.mutants:
            if name not in mutants:
                raise unknown("mutant", name, mutants)
    if isinstance(request, SoakRequest) and request.resume is not None:
        soaks = [path.parent.name for path in store.glob("*/soak.json")]
        if request.resume not in soaks:
            raise unknown("soak", request.resume, soaks)


def command_of(request: Request, store: Path, job: str) -> list[str]:
    """The words after `gauntlet`."""
    if isinstance(request, SoakRequest) and request.resume is not None:
        return ["soak", f"--resume={store / request.resume}", "--json"]
    words: list[str] = [request.kind]
    left_out = {"kind", "mutants", "baseline", "candidate", "resume"}
    left_out |= {"scenario"} if isinstance(request, RunRequest) else set()
    if isinstance(request, ZooRequest) and request.healthy is None:
        words += ["--without-faults"] if not request.mutants else []
    for name, value in request.model_dump(exclude=left_out, exclude_none=True).items():
        option = f"--{name.replace('_', '-')}"
        words += ([option] if value else []) if isinstance(value, bool) else [f"{option}={value}"]
    if isinstance(request, ZooRequest):
        return [*words, f"--out={store}/{ZOO}{job}", "--json", *request.mutants]
    words += [f"--out={store}", "--json"]
    if isinstance(request, RunRequest):
        return [*words, request.scenario]
    if isinstance(request, CompareRequest):
        return [*words, request.baseline, request.candidate]
    return words
