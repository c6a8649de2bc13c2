"""The pages: made here from the index and the folders, with the style, the words and the drawings of the reports.

Each works without a script; `service.js` only keeps a page of something under way up to date.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, quote, urlencode

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from pydantic import ValidationError

from harness.report import html, side_by_side, words
from harness.report.tables import Head, Table, nested
from harness.report.zoo import columns_of, mark, sentences
from harness.run_folder import DamagedRun, read_json
from harness.service import api
from harness.service.access import COOKIE, Access, cookie_of, same
from harness.service.entries import KINDS, STANDINGS, Entry, flake, histories, standing_class
from harness.service.index import Asked
from harness.service.jobs import Full
from harness.service.keeper import Keeper
from harness.service.plots import over_time
from harness.service.requests import catalog, is_name
from harness.service.schedules import REQUEST
from harness.service.zoo_page import healthy_of, mutants_of
from harness.store import SavedRun
from harness.topology import UsageError
from harness.zoo import in_words, summary_of_mutants

_HERE = Path(__file__).parent / "pages"
_REPORT = Path(html.__file__).parent
PER_PAGE = 50
#: Of a report a page of the service shows these; they are made from small files, however long the run was.
OF_VERDICT = ("findings", "attribution", "guards", "faults", "life", "logs", "notes")
OF_LIVE = ("rates", "faults", "life", "notes")
NAVIGATION = (("/", "Runs"), ("/scenarios", "Over time"), ("/comparisons", "Comparisons"), ("/zoo", "Zoo"),
              ("/jobs", "Jobs"), ("/schedules", "Schedules"), ("/start", "Start"))  # fmt: skip
STATIC = {"gauntlet.css": "text/css", "service.js": "text/javascript", "page.js": "text/javascript"}


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader([_HERE, _REPORT]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"standing_class": standing_class, "told": told, "path": path_of}
    made.filters |= {"clean": words.clean, "when": html.when, "seconds": words.seconds}
    return made


@cache
def _static(name: str) -> bytes:
    """The style is that of the reports, with what only these pages need."""
    if name == "gauntlet.css":
        return (_REPORT / "page.css").read_bytes() + (_HERE / "service.css").read_bytes()
    return ((_HERE if name == "service.js" else _REPORT) / name).read_bytes()


def told(standing: str) -> str:
    return {"running": "Under way", "broken off": "Broken off", "damaged": "Damaged"}.get(
        standing, words.word(standing)
    )


def path_of(*parts: str) -> str:
    """An address of this service; each part is one part of it, whatever it holds."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


class _Pages:
    """What every page needs."""

    def __init__(self, keeper: Keeper, access: Access) -> None:
        self.keeper, self.access = keeper, access

    def page(
        self, request: Request, template: str, title: str, status: int = 200, standing: str = "none", **data: Any
    ) -> HTMLResponse:
        here = request.url.path
        headers = {key.lower(): value for key, value in request.headers.items()}
        text = (
            _environment()
            .get_template(template)
            .render(
                title=title,
                navigation=[
                    (address, name, here == address or (address != "/" and here.startswith(address)))
                    for address, name in NAVIGATION
                ],
                may_change=self.access.by_cookie(headers),
                favicon=html.favicon(standing),
                here=here,
                **data,
            )
        )
        return HTMLResponse(text.encode("utf-8", "backslashreplace"), status)


def trouble(keeper: Keeper, access: Access, request: Request, status: int, why: str) -> Response:
    """The page of a refusal."""
    return _Pages(keeper, access).page(
        request, "trouble.jinja", {404: "Not found"}.get(status, "It cannot be done"), status, why=why
    )


async def form(request: Request) -> dict[str, str]:
    """The fields of a form that were filled in. The guard limits how long it is."""
    body = (await request.body()).decode(errors="replace")
    try:
        found = parse_qs(body, max_num_fields=50)
    except ValueError as error:
        raise HTTPException(400, "These are too many fields.") from error
    return {key: values[0].strip() for key, values in found.items() if values[0].strip()}


def request_of(fields: Mapping[str, str]) -> Any:
    """The request that a form describes. Raises UsageError that names the field."""
    asked: dict[str, Any] = {key: value for key, value in fields.items() if key not in ("name", "cron")}
    if "mutants" in asked:
        asked["mutants"] = asked["mutants"].replace(",", " ").split()
    try:
        return REQUEST.validate_python(asked)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{'.'.join(str(part) for part in first['loc'][1:]) or 'kind'}: {first['msg']}.") from error


def router(keeper: Keeper, access: Access) -> APIRouter:
    web = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    pages = _Pages(keeper, access)
    index = keeper.index

    def found(name: str) -> Entry:
        entry = index.check(name) if index.entry(name) else None
        if entry is None:
            raise HTTPException(404, f"There is no folder {words.clean(name)!r} in the store.")
        return entry

    @web.get("/static/{name}")
    def _file(name: str) -> Response:
        if name not in STATIC:
            raise HTTPException(404, "There is no such file.")
        return Response(_static(name), media_type=STATIC[name], headers={"Cache-Control": "no-cache"})

    @web.get("/")
    def _runs(
        request: Request,
        kind: str = "",
        standing: str = "",
        scenario: str = "",
        pipeline: str = "",
        text: str = "",
        page: Annotated[int, Query(ge=1, le=10**6)] = 1,
    ) -> Response:
        asked = Asked(kind, standing, scenario, pipeline, "", text.strip())
        total = index.count(asked)
        given = {"kind": kind, "standing": standing, "scenario": scenario, "pipeline": pipeline, "text": text}
        link = {
            n: "/?" + urlencode({k: v for k, v in {**given, "page": str(n)}.items() if v}) for n in (page - 1, page + 1)
        }
        return pages.page(
            request,
            "runs.jinja",
            "Runs",
            entries=index.entries(asked, PER_PAGE, (page - 1) * PER_PAGE),
            total=total,
            given=given,
            choices={
                "kind": KINDS,
                "standing": STANDINGS,
                "scenario": index.values("scenario"),
                "pipeline": index.values("pipeline"),
            },
            newer=link[page - 1] if page > 1 else "",
            older=link[page + 1] if page * PER_PAGE < total else "",
            jobs=[api.job_out(keeper, job) for job in keeper.jobs.all() if not job.over],
            store=str(keeper.store),
        )

    @web.get("/runs/{name}")
    def _run(request: Request, name: str) -> Response:
        entry = found(name)
        return pages.page(
            request,
            "run.jinja",
            words.clean(entry.name),
            standing=standing_class(entry.standing),
            **_of_entry(keeper, entry),
        )

    @web.get("/runs/{name}/now")
    def _now(request: Request, name: str) -> Response:
        """What changes on the page of something under way."""
        entry = found(name)
        return pages.page(request, "now.jinja", "", **_of_entry(keeper, entry))

    @web.get("/runs/{name}/report")
    def _report(name: str) -> Response:
        return RedirectResponse(f"{path_of('runs', found(name).name)}/files/report.html", 307)

    @web.get("/runs/{name}/files/{path:path}")
    def _file_of(name: str, path: str) -> Response:
        entry = index.entry(name)
        target = api.file_in(keeper.store / entry.name, path) if entry else None
        if target is None:
            raise HTTPException(404, "There is no such file in the store.")
        return api.sent(target)

    @web.post("/runs/{name}/remove")
    def _remove(name: str) -> Response:
        api.removed(keeper, found(name))
        return RedirectResponse("/", 303)

    @web.get("/scenarios")
    def _scenarios(request: Request) -> Response:
        rows = []
        for name in index.values("scenario"):
            entries = index.entries(Asked(scenario=name), 200)
            rows.append((name, *flake(reversed(entries)), entries))
        return pages.page(request, "scenarios.jinja", "Scenarios over time", rows=rows)

    @web.get("/scenarios/{name}")
    def _scenario(request: Request, name: str, pipeline: str = "", backend: str = "") -> Response:
        entries = index.entries(Asked(scenario=name, pipeline=pipeline, backend=backend), 100)
        if not entries:
            raise HTTPException(404, f"There is no run of {words.clean(name)!r}.")
        of_all = index.entries(Asked(scenario=name), 1000)
        judged, unsure, changes = flake(reversed(entries))
        return pages.page(
            request,
            "scenario.jinja",
            f"{words.clean(name)} over time",
            entries=entries,
            plot=over_time(entries[::-1]),
            judged=judged,
            unsure=unsure,
            changes=changes,
            violations=sum(e.standing == "violation" for e in entries),
            pipelines=sorted({e.pipeline for e in of_all if e.pipeline}),
            backends=sorted({e.backend for e in of_all if e.backend}),
            given={"pipeline": pipeline, "backend": backend},
        )

    @web.get("/comparisons")
    def _comparisons(request: Request, a: str = "", b: str = "") -> Response:
        kinds = [entry for kind in ("compare", "side-by-side") for entry in index.entries(Asked(kind=kind), 100)]
        runs = index.entries(Asked(kind="run"), 200)
        both = [found(name) for name in (a, b)] if a and b else []
        return pages.page(
            request,
            "comparisons.jinja",
            "Comparisons",
            entries=sorted(kinds, key=lambda e: e.started, reverse=True),
            runs=[run for run in runs if run.judged],
            both=both,
            table=_beside(keeper, both) if both else None,
            given={"a": a, "b": b},
        )

    @web.get("/zoo")
    def _zoo(request: Request) -> Response:
        folders = [keeper.store, *(keeper.store / entry.name for entry in index.entries(Asked(kind="zoo"), 50))]
        matrices, healthy = [], []
        for folder in folders:
            where = "the store itself" if folder == keeper.store else folder.name
            with contextlib.suppress(OSError):
                matrices.append((where, _matrix(keeper, folder)))
            with contextlib.suppress(OSError):
                count = healthy_of(folder / "healthy.jsonl")
                healthy.append((where, in_words(count)))
        return pages.page(request, "zoo.jinja", "The zoo of mutants", matrices=matrices, healthy=healthy)

    # -- jobs and schedules ---------------------------------------------------------------------------------------

    @web.get("/jobs")
    def _jobs(request: Request) -> Response:
        jobs = [api.job_out(keeper, job) for job in keeper.jobs.all()[:100]]
        return pages.page(request, "jobs.jinja", "Jobs", jobs=jobs)

    @web.get("/jobs/{id_}")
    def _job(request: Request, id_: str) -> Response:
        return _job_page(request, id_, "job.jinja")

    @web.get("/jobs/{id_}/now")
    def _job_now(request: Request, id_: str) -> Response:
        return _job_page(request, id_, "job_now.jinja")

    def _job_page(request: Request, id_: str, template: str) -> Response:
        job = keeper.jobs.get(id_)
        if job is None:
            raise HTTPException(404, "There is no such job.")
        output = words.clean(keeper.jobs.output(job))
        return pages.page(
            request,
            template,
            f"Job {job.id}",
            job=api.job_out(keeper, job),
            words=["gauntlet", *job.words],
            output=output,
        )

    @web.post("/jobs/{id_}/cancel")
    def _cancel(id_: str) -> Response:
        if keeper.jobs.cancel(id_) is None:
            raise HTTPException(404, "There is no such job.")
        return RedirectResponse(path_of("jobs", id_), 303)

    def _start_page(request: Request, fields: Mapping[str, str], why: str = "") -> Response:
        soaks = [entry.name for entry in index.entries(Asked(kind="soak", standing="broken off"))]
        return pages.page(
            request, "start.jinja", "Start", 400 if why else 200, catalog=catalog(), fields=fields, why=why, soaks=soaks
        )

    @web.get("/start")
    def _start(request: Request) -> Response:
        return _start_page(request, dict(request.query_params))

    @web.post("/start")
    async def _started(request: Request) -> Response:
        fields = await form(request)
        try:
            job = api.started(keeper, request_of(fields), "page")
        except (UsageError, Full) as error:
            return _start_page(request, fields, str(error))
        return RedirectResponse(path_of("jobs", job.id), 303)

    def _schedules_page(request: Request, fields: Mapping[str, str], why: str = "") -> Response:
        return pages.page(
            request,
            "schedules.jinja",
            "Schedules",
            400 if why else 200,
            schedules=keeper.schedules.all(),
            catalog=catalog(),
            fields=fields,
            why=why,
        )

    @web.get("/schedules")
    def _schedules(request: Request) -> Response:
        return _schedules_page(request, {})

    @web.post("/schedules")
    async def _schedule(request: Request) -> Response:
        fields = await form(request)
        try:
            asked = request_of(fields)
            api.check_names(asked, keeper.store)
            if not is_name(fields.get("name", "")):
                raise UsageError("name: letters, digits, dots, dashes and underscores.")
            keeper.schedules.put(fields["name"], fields.get("cron", ""), asked)
        except UsageError as error:
            return _schedules_page(request, fields, str(error))
        return RedirectResponse("/schedules", 303)

    @web.post("/schedules/{name}/remove")
    def _unschedule(name: str) -> Response:
        if not keeper.schedules.remove(name):
            raise HTTPException(404, "There is no such schedule.")
        return RedirectResponse("/schedules", 303)

    # -- the token ------------------------------------------------------------------------------------------------

    @web.get("/login")
    def _login(request: Request) -> Response:
        return pages.page(request, "login.jinja", "Token", why="")

    @web.post("/login")
    async def _logged_in(request: Request) -> Response:
        given = (await form(request)).get("token", "")
        if not same(given, access.token):
            return pages.page(request, "login.jinja", "Token", 401, why="This is not the token.")
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            COOKIE,
            cookie_of(access.token),
            max_age=30 * 86_400,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return answer

    @web.post("/logout")
    def _logged_out() -> Response:
        answer = RedirectResponse("/", 303)
        answer.delete_cookie(COOKIE)
        return answer

    return web


# ---------------------------------------------------------------------------------------------- the page of an entry


def _of_entry(keeper: Keeper, entry: Entry) -> dict[str, Any]:
    """All that the page of an entry shows."""
    folder = keeper.store / entry.name
    verdict = _verdict(folder) if entry.judged else {}
    job = keeper.jobs.get(entry.job) if entry.job else None
    sections: list[html.Section] = []
    shown = folder
    if entry.kind == "run":
        live = entry.standing == "running"
        sections = html.sections_of(SavedRun.open_unsealed(folder), verdict, OF_LIVE if live else OF_VERDICT, live)
    elif entry.standing == "running" and (begun := histories(folder)):
        shown = begun[-1].parent
        sections = html.sections_of(SavedRun.open_unsealed(shown), {}, OF_LIVE, live=True)
    return {
        "entry": entry,
        "now": _now_of(entry, folder, shown),
        "job": api.job_out(keeper, job) if job else None,
        "part": words.clean(shown.name) if shown != folder else "",
        "sentence": _sentence(entry, verdict),
        "meaning": words.meaning(verdict),
        "sections": sections,
        "tables": _tables(keeper, entry, folder, verdict),
        "parts_of_it": _parts(entry, folder, verdict),
        "has_report": (folder / "report.html").is_file() and entry.standing != "running",
        "files": _files(folder),
    }


def _verdict(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / "verdict.json")
    except DamagedRun:
        return {}


def _sentence(entry: Entry, verdict: Mapping[str, Any]) -> str:
    if not entry.judged or entry.kind == "zoo":
        return words.clean(entry.why)
    if entry.kind == "side-by-side":
        return side_by_side.sentence(verdict)
    if entry.kind == "soak":
        count = verdict.get("counts") or {}
        trends = words.findings_of(verdict)
        told = f"{count.get('pass')} cycles passed, {count.get('violation')} were violations, {count.get('inconclusive')} could not say"
        return words.clean(f"{told}; {trends[0].get('summary')}." if trends else told)
    return words.sentence(verdict)


def _now_of(entry: Entry, folder: Path, shown: Path) -> list[tuple[str, str]]:
    """The latest of what is under way, in a few figures."""
    if entry.standing != "running":
        return []
    from harness.service.entries import lines

    stage, faults = "", 0
    load: dict[str, Any] = {}
    with contextlib.suppress(OSError):
        for record in lines(shown / "history.jsonl", 2**20):
            kind = record.get("kind")
            stage = str(record.get("stage", "")) if kind == "stage" else stage
            load = record if kind == "load" else load
            faults += kind == "fault-start"
    found = [("Stage", words.clean(stage) or "starts")]
    for key in ("sent", "acked", "failed"):
        if isinstance(load.get(key), int):
            found.append((f"Events {key}", f"{load[key]:,}"))
    return [*found, ("Faults injected", str(faults))]


def _parts(entry: Entry, folder: Path, verdict: Mapping[str, Any]) -> list[dict[str, str]]:
    """The runs in a folder of several, each with the address of its report."""
    runs = verdict.get("runs")
    if not isinstance(runs, list):
        return []
    found = []
    for run in runs:
        if not isinstance(run, Mapping):
            continue
        name = Path(str(run.get("run") or "")).name
        said = " ".join(str(run[key]) for key in ("side", "pair", "pipeline") if run.get(key) is not None)
        href = (
            f"{path_of('runs', entry.name)}/files{path_of(name)}/report.html"
            if (folder / name / "report.html").is_file()
            else ""
        )
        found.append(
            {
                "name": words.clean(said or name),
                "standing": html.standing_of(run),
                "told": words.word(run.get("verdict")),
                "href": href,
            }
        )
    return found


def _tables(keeper: Keeper, entry: Entry, folder: Path, verdict: Mapping[str, Any]) -> list[tuple[str, Table]]:
    """Tables of what is no single run: a soak's cycles and trends, what a comparison measured, the zoo's matrix."""
    found: list[tuple[str, Table | None]] = []
    if entry.kind == "soak":
        found = [("Cycles", _cycles(folder)), ("Trends", _trends(verdict))]
    elif entry.kind == "zoo":
        with contextlib.suppress(OSError):
            found = [("Which assertion caught which mutant", _matrix(keeper, folder)["table"])]
    elif entry.kind == "compare":
        found = [(words.label(key).capitalize(), nested(key, verdict.get(key))) for key in ("measures", "findings")]
    elif entry.kind == "side-by-side":
        found = [("Figures", _figures(verdict))]
    return [(title, table) for title, table in found if table]


def _figures(verdict: Mapping[str, Any]) -> Table | None:
    """The figures of runs side by side, a column each; what was not measured is a dash and never 0."""
    lines = [
        line
        for line in verdict.get("table") or []
        if isinstance(line, Mapping) and isinstance(line.get("values"), Mapping)
    ]
    if not lines:
        return None
    names = list(dict.fromkeys(str(name) for line in lines for name in line["values"]))
    rows = []
    for line in lines:
        values = [line["values"].get(name) for name in names]
        told = ["–" if value is None else words.scalar("", value) for value in values]
        rows.append([words.clean(line.get("measure", "")), *told, words.clean(line.get("unit", ""))])
    heads = [Head("Measure"), *(Head(words.clean(name), True) for name in names), Head("Unit")]
    return Table("What was measured of each", heads, rows)


def _cycles(folder: Path) -> Table | None:
    try:
        cycles = read_json(folder / "soak.json")["cycles"]
        heads = [
            Head("Cycle", True),
            Head("Attempt", True),
            Head("Verdict"),
            Head("Seed", True),
            Head("Events", True),
            Head("Faults", True),
            Head("p99", True),
            Head("Violated"),
        ]
        rows = []
        for c in reversed(cycles[-200:]):
            p99 = c["figures"].get("latency p99 (s)")
            rows.append([c["number"], c["attempt"], words.word(c["verdict"]), c["seed"], f"{c['events'].get('acked') or 0:,}", c["faults"],
                         "" if p99 is None else words.seconds(p99), words.clean(", ".join(c["violated"]))])  # fmt: skip
        more = f"The last 200 of {len(cycles)}." if len(cycles) > 200 else ""
        return Table("The newest first", heads, rows, more)
    except (DamagedRun, KeyError, TypeError, AttributeError):
        return None


def _trends(verdict: Mapping[str, Any]) -> Table | None:
    found = words.findings_of(verdict)
    return nested("each measure over the cycles", (found[0].get("figures") or {}).get("measures")) if found else None


def _files(folder: Path) -> list[tuple[str, str]]:
    """Names of the files that a person may want, with their sizes."""
    found = []
    for path in sorted([*folder.glob("*"), *folder.glob("logs/*")]):
        if path.is_file() and not path.name.startswith("."):
            with contextlib.suppress(OSError):
                found.append((path.relative_to(folder).as_posix(), f"{words.compact(path.stat().st_size)}B"))
    return found[:200]


def _matrix(keeper: Keeper, folder: Path) -> dict[str, Any]:
    """The zoo's table. Raises OSError where there is none."""
    matrix = mutants_of(folder / "zoo.jsonl")
    names = columns_of(matrix.rows)
    heads = [
        Head("Mutant"),
        Head("Outcome"),
        Head("Runs", True),
        *(Head(words.clean(name)) for name in names),
        Head("Without faults"),
        Head("Reports"),
    ]
    rows: list[list[Any]] = []
    for row in matrix.rows:
        reports = []
        for trial in row.trials:
            run = Path(trial.folder).name
            inside = folder / run if run and folder != keeper.store else None
            if inside is not None and (inside / "report.html").is_file():
                reports.append(
                    Markup('<a href="{}">seed {}</a>').format(
                        f"{path_of('runs', folder.name)}/files{path_of(run)}/report.html", trial.seed
                    )
                )
            elif run and keeper.index.entry(run):
                reports.append(Markup('<a href="{}">seed {}</a>').format(path_of("runs", run), trial.seed))
        standing = (
            "pass"
            if row.outcome == "caught"
            else "inconclusive"
            if row.outcome in ("inconclusive", "failed")
            else "violation"
        )
        outcome = Markup(html.macros().mark(standing, row.outcome))
        rows.append(
            [
                words.clean(row.mutant.name),
                outcome,
                row.runs,
                *(mark(row, name) for name in names),
                row.without_faults or "",
                Markup(", ").join(reports),
            ]
        )
    summary = summary_of_mutants(matrix.rows, len(matrix.rows) == matrix.known)
    caption = (
        "● found by the assertion that must find it · ○ found by another as well · - not found by the one that must"
    )
    return {
        "table": Table(caption, heads, rows),
        "told": sentences(matrix.rows, summary),
        "known": matrix.known,
        "there": len(matrix.rows),
    }


def _beside(keeper: Keeper, both: list[Entry]) -> Table:
    """Two runs' figures, line by line: what was asked, what came out, and every finding."""
    verdicts = [_verdict(keeper.store / entry.name) if entry.judged else {} for entry in both]
    rows: list[list[Any]] = []
    for label, value in (
        ("Verdict", lambda e: told(e.standing)),
        ("Scenario", lambda e: e.scenario),
        ("Pipeline", lambda e: e.pipeline),
        ("Backend", lambda e: e.backend),
        ("Seed", lambda e: "" if e.seed is None else str(e.seed)),
        ("Events acknowledged", lambda e: "" if e.acked is None else f"{e.acked:,}"),
        ("Latency, p99", lambda e: "" if e.p99_s is None else words.seconds(e.p99_s)),
        ("From deploy to verdict", lambda e: "" if e.seconds is None else words.seconds(e.seconds)),
    ):
        rows.append([label, *(words.clean(value(entry)) for entry in both)])
    found = [{words.finding_name(f): f for f in words.findings_of(verdict)} for verdict in verdicts]
    for name in dict.fromkeys(name for one in found for name in one):
        rows.append(
            [
                name,
                *(
                    f"{words.told(one[name])}: {words.shorten(words.clean(one[name].get('summary', '')), 300)}"
                    if name in one
                    else ""
                    for one in found
                ),
            ]
        )
    return Table("Figures and findings of both", [Head("")] + [Head(words.clean(e.name)) for e in both], rows)
