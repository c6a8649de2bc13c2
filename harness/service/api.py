"""The HTTP API: what there is, what is started, watched, cancelled and fetched. `/api/openapi.json` describes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Header, HTTPException, Query, Response
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, StreamingResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from harness.run_folder import DamagedRun, read_json
from harness.service import retention
from harness.service.access import POLICY_OF_FILES
from harness.service.entries import Entry, flake
from harness.service.following import Follower, event
from harness.service.index import Asked
from harness.service.jobs import Full, Job
from harness.service.keeper import Keeper
from harness.service.requests import Name, Request, catalog, check_names, command_of
from harness.service.schedules import Schedule
from harness.topology import UsageError

#: A watcher is told of news so often, and in between that the connection lives.
EVERY_S, ALIVE_S = 0.25, 15.0
Kind = Literal["run", "side-by-side", "compare", "soak", "zoo"]
Standing = Literal["pass", "violation", "inconclusive", "running", "broken off", "damaged"]
Text = Annotated[str, Query(max_length=200)]
#: Of a folder, a job or a schedule; whatever is none is answered by 404.
Called = Annotated[str, InPath(min_length=1, max_length=255)]


class EntryOut(BaseModel):
    """A folder of the store: a run, runs side by side, a comparison, a soak, a zoo."""

    name: str
    kind: Kind
    standing: Standing
    why: str
    scenario: str
    pipeline: str
    backend: str
    seed: int | None
    started: str
    seconds: float | None
    acked: int | None
    p99_s: float | None
    violated: list[str]
    job: str


class Entries(BaseModel):
    total: int
    entries: list[EntryOut]


class JobOut(BaseModel):
    """A command of the service. `run`: the folder that it made, as soon as there is one."""

    id: str
    state: Literal["waiting", "starting", "running", "ended"]
    request: dict[str, Any]
    origin: str
    created: str
    started: str
    ended: str
    pid: int | None
    status: int | None
    verdict: str
    note: str
    cancelled: str
    run: str | None


class JobsOut(BaseModel):
    jobs: list[JobOut]


class ScheduleIn(BaseModel):
    """`cron`: minute hour day month weekday, in UTC."""

    model_config = ConfigDict(extra="forbid")
    cron: Annotated[str, Field(min_length=9, max_length=100)]
    request: Request


class ScheduleOut(BaseModel):
    name: str
    cron: str
    request: dict[str, Any]
    next: str
    last: str
    job: str
    note: str


class SchedulesOut(BaseModel):
    schedules: list[ScheduleOut]


class ScenarioOut(BaseModel):
    """A scenario over time. `flake_rate`: how many judged ones could not say; `change_rate`: how often one verdict
    followed on another."""

    scenario: str
    judged: int
    flake_rate: float | None
    change_rate: float | None
    entries: list[EntryOut]


class Told(BaseModel):
    detail: str


def _says(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Told} for status in statuses}


ANSWERS = _says(401, 403, 413, 421)
#: Only for the description: who may do what is decided before a request comes here (`access.Guard`).
CHANGE = [
    Depends(
        HTTPBearer(
            auto_error=False,
            description="The service's token: for every change, and to read where it is not on loopback.",
        )
    )
]


def entry_out(entry: Entry) -> EntryOut:
    return EntryOut.model_validate(entry.as_dict())


def job_out(keeper: Keeper, job: Job) -> JobOut:
    made = keeper.index.of_job(job.id)
    name = made.name if made else job.request.get("resume")
    told = {key: value for key, value in job.as_dict().items() if key in JobOut.model_fields}
    return JobOut.model_validate({**told, "run": name})


def started(keeper: Keeper, request: Any, origin: str) -> Job:
    """A job for a request. Raises UsageError and Full."""
    check_names(request, keeper.store)
    resumed = getattr(request, "resume", None)
    if resumed and resumed in keeper.alive():
        raise UsageError(f"{resumed} is under way.")
    return keeper.jobs.submit(
        request.model_dump(exclude_none=True), lambda id_: command_of(request, keeper.store, id_), origin
    )


def removed(keeper: Keeper, entry: Entry) -> None:
    """Removes a folder from the store. Raises HTTPException where it is under way, or cannot be."""
    if entry.standing == "running" or entry.name in keeper.alive():
        raise HTTPException(409, f"{entry.name} is under way; cancel its job first.")
    try:
        retention.remove(keeper.store, entry.name)
    except OSError as error:
        raise HTTPException(409, f"{entry.name} cannot be removed: {error.strerror}.") from error
    keeper.index.refresh()


def file_in(folder: Path, relative: str) -> Path | None:
    """A file of a folder; None for what leads out of it by whatever way, for what is hidden, and for what is none."""
    parts = relative.split("/")
    if any(part in ("", ".", "..") or part.startswith(".") or "\0" in part or "\\" in part for part in parts):
        return None
    try:
        path = (folder / relative).resolve(strict=True)
        inside = path.is_relative_to(folder.resolve(strict=True)) and path.is_file()
    except (OSError, ValueError, RuntimeError):
        return None
    return path if inside else None


_TEXT = {".json": "application/json", ".jsonl": "text/plain; charset=utf-8", ".log": "text/plain; charset=utf-8",
         ".xml": "text/plain; charset=utf-8", ".txt": "text/plain; charset=utf-8", ".md": "text/plain; charset=utf-8"}  # fmt: skip


def sent(path: Path) -> Response:
    """A file of a run, without any right of the service's own pages."""
    headers = {"Content-Security-Policy": POLICY_OF_FILES}
    if path.suffix == ".html":
        return FileResponse(path, media_type="text/html; charset=utf-8", headers=headers)
    if path.suffix in _TEXT:
        return FileResponse(path, media_type=_TEXT[path.suffix], headers=headers)
    return FileResponse(path, media_type="application/octet-stream", filename=path.name, headers=headers)


async def watched(keeper: Keeper, job_id: str | None, name: str | None, place: str) -> AsyncIterator[str]:
    """Events: `job` whenever the job's state changes, `record` for each line of the history, `end` with what came out."""
    told_job: JobOut | None = None
    follower: Follower | None = None
    quiet = 0.0
    yield "retry: 2000\n\n"
    while True:
        job = keeper.jobs.get(job_id) if job_id else None
        if job is not None:
            now = await run_in_threadpool(job_out, keeper, job)
            if now != told_job:
                told_job, quiet = now, 0.0
                yield event("job", now.model_dump())
            name = name or now.run
        entry = await run_in_threadpool(keeper.index.entry, name) if name else None
        if entry is not None and follower is None:
            follower = Follower(keeper.store / entry.name, place)
        over = job.over if job is not None else entry is None or entry.standing != "running"
        news = await run_in_threadpool(list, follower.new()) if follower else []
        for at, record in news:
            quiet = 0.0
            yield event("record", record, at)
        if over and not news:
            final = await run_in_threadpool(keeper.index.check, name) if name else None
            told = {
                "job": told_job.model_dump() if told_job else None,
                "entry": entry_out(final).model_dump() if final else None,
            }
            yield event("end", told)
            return
        quiet += EVERY_S
        if quiet >= ALIVE_S:
            quiet = 0.0
            yield ": alive\n\n"
        await asyncio.sleep(EVERY_S)


def streamed(events: AsyncIterator[str]) -> StreamingResponse:
    return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


FILE: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": {}}}}
OUTPUT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Server-sent events"}
}


def router(keeper: Keeper) -> APIRouter:
    api = APIRouter(prefix="/api", responses=ANSWERS)

    def found(name: str) -> Entry:
        entry = keeper.index.entry(name)
        if entry is None:
            raise HTTPException(404, f"There is no folder {name!r} in the store.")
        return entry

    def found_job(id_: str) -> Job:
        job = keeper.jobs.get(id_)
        if job is None:
            raise HTTPException(404, f"There is no job {id_!r}.")
        return job

    @api.get("/catalog", summary="Scenarios, pipelines, faults, assertions and mutants by name")
    def _catalog() -> dict[str, Any]:
        return catalog()

    # -- the store ------------------------------------------------------------------------------------------------

    @api.get("/runs", summary="What is in the store, the newest first")
    def _runs(
        kind: Kind | None = None,
        standing: Standing | None = None,
        scenario: Text = "",
        pipeline: Text = "",
        backend: Text = "",
        text: Text = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
    ) -> Entries:
        asked = Asked(kind or "", standing or "", scenario, pipeline, backend, text)
        entries = [entry_out(entry) for entry in keeper.index.entries(asked, limit, offset)]
        return Entries(total=keeper.index.count(asked), entries=entries)

    @api.get("/runs/{name}", summary="One folder, read again and held against its manifest", responses=_says(404))
    def _run(name: Called) -> EntryOut:
        found(name)
        checked = keeper.index.check(name)
        if checked is None:
            raise HTTPException(404, f"There is no folder {name!r} in the store.")
        return entry_out(checked)

    @api.get("/runs/{name}/verdict", summary="Its verdict.json", responses=_says(404, 409))
    def _verdict(name: Called) -> dict[str, Any]:
        folder = keeper.store / found(name).name
        entry = keeper.index.check(name)
        if entry is None or not entry.judged:
            state = entry.standing if entry else "gone"
            raise HTTPException(409, f"{name} has no verdict: it is {state}. {entry.why if entry else ''}".strip())
        try:
            return read_json(folder / "verdict.json")
        except DamagedRun as error:
            raise HTTPException(409, str(error)) from error

    @api.get(
        "/runs/{name}/events",
        summary="Its history as server-sent events, up to its end",
        response_class=StreamingResponse,
        responses=STREAM | _says(404),
    )
    def _events(name: Called, last_event_id: Annotated[str, Header(max_length=500)] = "@0") -> Response:
        return streamed(watched(keeper, found(name).job or None, name, last_event_id))

    @api.get(
        "/runs/{name}/files/{path:path}",
        summary="A file of it",
        response_class=FileResponse,
        responses=FILE | _says(404),
    )
    def _file(name: Called, path: Annotated[str, InPath(max_length=500)]) -> Response:
        target = file_in(keeper.store / found(name).name, path)
        if target is None:
            raise HTTPException(404, f"There is no such file in {name!r}.")
        return sent(target)

    @api.delete(
        "/runs/{name}",
        dependencies=CHANGE,
        status_code=204,
        summary="Removes a folder that is not under way",
        responses=_says(404, 409),
    )
    def _remove(name: Called) -> None:
        removed(keeper, found(name))

    @api.get("/scenarios", summary="The scenarios of which there are runs")
    def _scenarios() -> dict[str, list[str]]:
        return {"scenarios": keeper.index.values("scenario")}

    @api.get("/scenarios/{name}", summary="A scenario over time", responses=_says(404))
    def _scenario(
        name: Called,
        pipeline: Text = "",
        backend: Text = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    ) -> ScenarioOut:
        entries = keeper.index.entries(Asked(scenario=name, pipeline=pipeline, backend=backend), limit)
        if not entries:
            raise HTTPException(404, f"There is no run of {name!r}.")
        judged, unsure, changes = flake(reversed(entries))
        return ScenarioOut(
            scenario=name,
            judged=judged,
            flake_rate=unsure / judged if judged else None,
            change_rate=changes / (judged - 1) if judged > 1 else None,
            entries=[entry_out(entry) for entry in entries],
        )

    @api.post("/index", dependencies=CHANGE, summary="Makes the index again from the folders")
    def _rebuild() -> dict[str, int]:
        return {"entries": keeper.index.rebuild()}

    # -- jobs -----------------------------------------------------------------------------------------------------

    @api.post(
        "/jobs",
        dependencies=CHANGE,
        status_code=202,
        summary="Starts a run, a soak, a comparison or a zoo",
        responses=_says(400, 429),
    )
    def _start(request: Annotated[Request, Body()], response: Response) -> JobOut:
        try:
            job = started(keeper, request, "api")
        except UsageError as error:
            raise HTTPException(400, str(error)) from error
        except Full as error:
            raise HTTPException(429, str(error)) from error
        response.headers["Location"] = f"/api/jobs/{job.id}"
        return job_out(keeper, job)

    @api.get("/jobs", summary="The jobs of this service, the newest first")
    def _jobs(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> JobsOut:
        return JobsOut(jobs=[job_out(keeper, job) for job in keeper.jobs.all()[:limit]])

    @api.get("/jobs/{id_}", summary="A job", responses=_says(404))
    def _job(id_: Called) -> JobOut:
        return job_out(keeper, found_job(id_))

    @api.get(
        "/jobs/{id_}/output",
        summary="The end of what its command said",
        response_class=Response,
        responses=OUTPUT | _says(404),
    )
    def _output(id_: Called) -> Response:
        return Response(keeper.jobs.output(found_job(id_)), media_type="text/plain; charset=utf-8")

    @api.get(
        "/jobs/{id_}/events",
        summary="A job and the history of its run as server-sent events",
        response_class=StreamingResponse,
        responses=STREAM | _says(404),
    )
    def _watch(id_: Called, last_event_id: Annotated[str, Header(max_length=500)] = "@0") -> Response:
        return streamed(watched(keeper, found_job(id_).id, None, last_event_id))

    @api.post(
        "/jobs/{id_}/cancel",
        dependencies=CHANGE,
        status_code=202,
        summary="Interrupts a job; it heals and cleans up by itself",
        responses=_says(404),
    )
    def _cancel(id_: Called) -> JobOut:
        job = keeper.jobs.cancel(found_job(id_).id)
        assert job is not None
        return job_out(keeper, job)

    # -- schedules ------------------------------------------------------------------------------------------------

    @api.get("/schedules", summary="What is started by the clock")
    def _schedules() -> SchedulesOut:
        return SchedulesOut(schedules=[schedule_out(one) for one in keeper.schedules.all()])

    @api.put("/schedules/{name}", dependencies=CHANGE, summary="Adds or changes a schedule", responses=_says(400))
    def _put(name: Annotated[Name, InPath()], told: ScheduleIn) -> ScheduleOut:
        try:
            check_names(told.request, keeper.store)
            return schedule_out(keeper.schedules.put(name, told.cron, told.request))
        except UsageError as error:
            raise HTTPException(400, str(error)) from error

    @api.delete(
        "/schedules/{name}", dependencies=CHANGE, status_code=204, summary="Removes a schedule", responses=_says(404)
    )
    def _drop(name: Called) -> None:
        if not keeper.schedules.remove(name):
            raise HTTPException(404, f"There is no schedule {name!r}.")

    return api


def schedule_out(one: Schedule) -> ScheduleOut:
    return ScheduleOut(**one.__dict__)
