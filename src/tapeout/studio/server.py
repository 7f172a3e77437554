"""The studio's server: Starlette on the loopback, one address a view. Answers only what the library lists.

Pages carry no data of others as markup, and a policy that lets the browser run the studio's own two scripts and nothing
else. A request that names another host is refused, so that no other site's page can ask through the reader's browser.
"""

import json
import threading
import webbrowser
from collections import OrderedDict
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from tapeout.chip import REFERENCE_CHIPS
from tapeout.errors import TapeoutError
from tapeout.report import differences as differences_report
from tapeout.report.page import Page, Paragraph, to_html
from tapeout.report.run_folder import TRACE
from tapeout.silicon import technology
from tapeout.silicon.naming import accelerator
from tapeout.studio import trace as traces
from tapeout.studio.library import Library, Run
from tapeout.studio.pages import chips, decide, overview, runs
from tapeout.workbench import differences

HOST = "127.0.0.1"
TRACES_KEPT = 3
LINKS = (("Studio", "/"), ("Chips", "/chips"), ("Compare", "/compare"), ("Decide", "/decide"))
SCRIPTS = ("studio.js", "timeline.js")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


class Missing(TapeoutError):
    """Something that the folder does not hold."""


class Studio:
    """The views of one folder."""

    def __init__(self, root: Path) -> None:
        self.library = Library(root.resolve())
        self.lock = threading.Lock()
        self.traces: OrderedDict[tuple[str, float], traces.Columns] = OrderedDict()
        self.library.scan()

    def run(self, request: Request) -> Run:
        key = request.path_params["key"]
        if key not in self.library.runs:
            raise Missing(f"there is no run {key!r} in this folder")
        return self.library.runs[key]

    def overview(self, request: Request) -> Page:
        with self.lock:
            self.library.scan()
        return overview.page(self.library)

    def profile(self, request: Request) -> Page:
        return runs.profile(self.run(request))

    def kernels(self, request: Request) -> Page:
        return runs.kernels(self.run(request))

    def kernel(self, request: Request) -> Page:
        return runs.kernel(self.run(request), _number(request, "n"))

    def timeline(self, request: Request) -> Page:
        return runs.timeline(self.run(request))

    def chips(self, request: Request) -> Page:
        return chips.page(self.library.chips, request.query_params.get("base", "inference"))

    def compare(self, request: Request) -> Page:
        """Two runs or two described chips against each other."""
        asked = [request.query_params.get(name, "") for name in ("a", "b")]
        described = {**REFERENCE_CHIPS, **self.library.chips}
        choice = chips.choose("/compare", {"a": list(self.library.runs), "b": list(self.library.runs)}, asked)
        choices = chips.choose("/compare", {"a": list(described), "b": list(described)}, asked)
        if not all(asked):
            return Page("Compare", [Paragraph("Two runs:"), choice, Paragraph("Two chips:"), choices])
        if all(name in self.library.runs for name in asked):
            first, second = (differences.read_profile(self.library.runs[name].folder) for name in asked)
            found = differences.of_profiles(first, second, (asked[0], asked[1]))
        elif all(name in described for name in asked):
            figures, volume = technology.load(), 100_000
            found = differences.of_chips(described[asked[0]], described[asked[1]], figures, volume=volume)
        else:
            raise Missing(f"{asked[0]!r} and {asked[1]!r} are not two runs or two described chips of this folder")
        made = differences_report.page(found, rows=None)
        return Page(made.title, [choice, choices, *made.blocks], made.kind)

    def decide(self, request: Request) -> Page:
        described = {**REFERENCE_CHIPS, **self.library.chips}
        name, other = request.query_params.get("chip", "inference"), request.query_params.get("other", "H100-SXM5-80GB")
        by = request.query_params.get("by", "memory_gb_per_s")
        figures = technology.load()
        catalogued = [each.name for each in chips.catalogued()]
        if name not in described or other not in catalogued:
            raise Missing(f"{name!r} is not a described chip of this folder, or {other!r} no chip of the catalog")
        made = decide.page(accelerator(described[name], figures), accelerator(other, figures), by, figures)
        columns = [column for _, column in chips.COLUMNS if column != "year"]
        choice = {"chip": list(described), "other": catalogued, "by": columns}
        return Page(made.title, [chips.choose("/decide", choice, [name, other, by]), *made.blocks], made.kind)

    def own_chip(self, request: Request) -> Any:
        """The sliders' answer."""
        asked = dict(request.query_params)
        base = asked.pop("base", "inference")
        described = {**REFERENCE_CHIPS, **self.library.chips}
        if base not in described:
            raise Missing(f"there is no described chip {base!r}")
        known = {place for place, _, _ in chips.SLIDERS}
        try:
            changes = {place: int(value) for place, value in asked.items() if place in known}
        except ValueError:
            raise Missing("the value of a slider is a whole number") from None
        return chips.judged(described[base], changes)

    def trace(self, request: Request) -> Any:
        return self._columns(self.run(request)).plain()

    def span(self, request: Request) -> Any:
        return self._columns(self.run(request)).details(_number(request, "event"))

    def _columns(self, run: Run) -> traces.Columns:
        if not run.has(TRACE):
            raise Missing(f"there is no {TRACE} in {run.key}")
        with self.lock:
            mark = (run.key, (run.folder / TRACE).stat().st_mtime)
            if mark not in self.traces:
                self.traces[mark] = traces.columns(run.folder / TRACE)
                while len(self.traces) > TRACES_KEPT:
                    self.traces.popitem(last=False)
            self.traces.move_to_end(mark)
            return self.traces[mark]

    def raw(self, request: Request) -> Response:
        """The trace as it lies there, for the reader to give to Perfetto."""
        run = self.run(request)
        if not run.has(TRACE):
            raise Missing(f"there is no {TRACE} in {run.key}")
        return Response((run.folder / TRACE).read_bytes(), media_type="application/octet-stream", headers=HEADERS)


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "")
    if not text.isdecimal() or len(text) > 9:
        raise Missing(f"{name}={text!r} is not a number")
    return int(text)


def application(root: Path) -> Starlette:
    """The studio over a folder."""
    studio = Studio(root)

    def page(view: Callable[[Request], Page]) -> Any:
        async def answer(request: Request) -> Response:
            status = 200
            try:
                made = await run_in_threadpool(view, request)
            except TapeoutError as error:
                status = 404 if isinstance(error, Missing) else 422
                made = Page("This cannot be shown", [Paragraph(f"{error}.")])
            key = request.path_params.get("key")
            run = studio.library.runs.get(key) if key else None
            links = [*LINKS, *(overview.links_of(run) if run else [])]
            html = to_html(made, links=links, scripts=[f"/static/{name}" for name in SCRIPTS])
            return HTMLResponse(html, status, headers=HEADERS)

        return answer

    def data(view: Callable[[Request], Any]) -> Any:
        async def answer(request: Request) -> Response:
            try:
                found = await run_in_threadpool(view, request)
            except TapeoutError as error:
                status = 404 if isinstance(error, Missing) else 422
                return JSONResponse({"fault": str(error)}, status, headers=HEADERS)
            if isinstance(found, Response):
                return found
            text = json.dumps(found, separators=(",", ":"), allow_nan=False)
            return Response(text, media_type="application/json", headers=HEADERS)

        return answer

    async def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in SCRIPTS:
            return Response("not found", 404, headers=HEADERS)
        text = (resources.files("tapeout.studio") / "static" / name).read_text("utf-8")
        return Response(text, media_type="text/javascript", headers=HEADERS)

    async def favicon(request: Request) -> Response:
        return Response(status_code=204, headers=HEADERS)

    routes = [
        Route("/", page(studio.overview)),
        Route("/chips", page(studio.chips)),
        Route("/compare", page(studio.compare)),
        Route("/decide", page(studio.decide)),
        Route("/run/{key:path}", page(studio.profile)),
        Route("/kernels/{key:path}", page(studio.kernels)),
        Route("/kernel/{key:path}", page(studio.kernel)),
        Route("/timeline/{key:path}", page(studio.timeline)),
        Route("/api/chip", data(studio.own_chip)),
        Route("/api/trace/{key:path}", data(studio.trace)),
        Route("/api/span/{key:path}", data(studio.span)),
        Route("/raw/{key:path}", data(studio.raw)),
        Route("/static/{name}", static),
        Route("/favicon.ico", favicon),
    ]
    middleware = [
        Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]),
        Middleware(GZipMiddleware, minimum_size=2000, compresslevel=1),
    ]
    return Starlette(routes=routes, middleware=middleware)


def serve(root: Path, port: int, *, open_browser: bool) -> None:
    """Answer until interrupted. Raises TapeoutError for a folder that is none and a port that is taken."""
    import socket

    import uvicorn

    if not root.is_dir():
        raise TapeoutError(f"there is no folder {str(root)!r}")
    app = application(root)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        raise TapeoutError(
            f"port {port} of {HOST} cannot be had: {error.strerror}; choose another with --port"
        ) from None
    address = f"http://{HOST}:{listener.getsockname()[1]}/"
    print(f"studio of {root}: {address} (Ctrl+C ends it)", flush=True)
    if open_browser:
        webbrowser.open(address)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    server.run(sockets=[listener])
