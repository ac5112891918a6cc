"""How long pages of the web UI take with the month of `bench/month.py` on record, and what open tabs cost.

The document alone is timed over HTTP. Where there is a Chromium, in one that has nothing cached, a page's
content is ready once it is there, styled, and its script has run (the end of DOMContentLoaded); when it is
first seen, drawn without a graphics card, is told beside it. Then twenty tabs ask for news as the script of
the pages has them do, and the CPU time of the API's process and of PostgreSQL is told, above that without.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import cycle, islice
from statistics import median

import httpx
import psutil
import psycopg
from playwright.sync_api import Browser, sync_playwright

from admin_api.pages.cookies import Cookie
from bench.api import api
from bench.history import beside
from bench.month import JOBS, counting, invent
from bench.past import count
from bench.result import BenchError, Bound, Effort, Result, percentile
from bench.stage import Stage
from standalone import people
from store.database import Role, open_pool
from tests.ui.browser import installed

_REQUESTS = 20
_LOADS = 7
_TABS = 20
_TAB_SECONDS = 30.0
_MOST_MS = 300.0
_MOST_CORES = 0.25
_EMAIL, _PASSWORD = "bench@example.com", "stars and signs"

_PAGES = (
    *("/overview", "/jobs", "/jobs?state=failed", "/jobs?provider=provider-1", "/jobs?user_id=user-77"),
    *("/jobs?q=aries", "/jobs/{job}", "/jobs/matching?action=retry&state=failed", "/playground"),
    *("/playground?feature=daily_zodiac_text", "/queues", "/usage", "/usage?days=1", "/usage?days=30"),
    *("/usage?days=30&by=user", "/usage?days=30&by=model", "/usage?days=90", "/alerts", "/providers"),
    *("/providers/{provider}", "/providers/new", "/models/{model}", "/catalog", "/catalog?vendor=openai"),
    *("/assignments", "/assignments/daily_zodiac_text", "/features", "/features/daily_zodiac_text/edit"),
    *("/integrations", "/people", "/tokens", "/account", "/audit", "/setup"),
)
_LIVE = ("/overview", "/queues", "/jobs", "/providers", "/providers/{provider}")
"""Pages that ask for news while they are open, without end; the tabs are shared out among them."""

_IDS = """
SELECT (SELECT id::text FROM job_history ORDER BY id DESC LIMIT 1) AS job,
    (SELECT id::text FROM ai_providers WHERE slug = 'provider-0') AS provider,
    (SELECT id::text FROM ai_models WHERE model_id = 'model-0-0') AS model"""

_SEEN = """async () => {
    const first = () => performance.getEntriesByName("first-contentful-paint")[0];
    while (!first()) await new Promise(done => setTimeout(done, 5));
    const [page] = performance.getEntriesByType("navigation");
    return [page.domContentLoadedEventEnd, first().startTime];
}"""


def measure(stage: Stage, effort: Effort, progress: Callable[[str], None]) -> Result:
    """Milliseconds of each page, and cores of the tabs."""
    jobs = effort.samples(JOBS)
    with ExitStack() as opened:
        full = opened.enter_context(beside(stage, "bench_pages"))
        progress(f"writing {jobs:,} finished jobs and their calls")
        invent(full.db, jobs)
        pool = opened.enter_context(closing(open_pool(full.settings.database(), Role.WORKER, size=1)))
        count(pool)
        full.db.execute("VACUUM (ANALYZE)")
        opened.enter_context(counting(pool))
        settings = full.settings.model_copy(update={"second_factor_postponable": True})
        people.create_admin(settings, email=_EMAIL, role="super_admin", password=_PASSWORD)
        running = opened.enter_context(api(settings))
        ids = _ids(full.db)
        with httpx.Client(base_url=running.url, timeout=60, trust_env=False) as client:
            session = _entered(client)
            progress("asking for documents")
            pages = [path.format(**ids) for path in _PAGES]
            documents = {path: _asked(client, path, effort.samples(_REQUESTS, least=3)) for path in pages}
        seen: Mapping[str, tuple[float, float]] = {}
        if not effort.quick and (found := installed()) is not None:
            progress("looking at pages")
            seen = _seen(found, running.url, session, pages)
        progress(f"{_TABS} tabs are open")
        tabs = [path.format(**ids) for path in islice(cycle(_LIVE), _TABS)]
        processes = _processes(running.pid, full.db)
        seconds = effort.seconds if effort.quick else _TAB_SECONDS
        idle = _cores(processes, seconds)
        with _open(running.url, session, tabs):
            busy = _cores(processes, seconds)
    slowest = max(ready for ready, _ in (seen or documents).values())
    return Result(
        title=f"Pages of the web UI, {jobs:,} finished jobs on record",
        columns=("page", "document p50 ms", "p95 ms", "ready p50 ms", "painted p50 ms"),
        rows=[
            [
                _short(path),
                *(f"{each:.0f}" for each in documents[path]),
                *(f"{each:.0f}" if path in seen else "" for each in seen.get(path, (0, 0))),
            ]
            for path in pages
        ],
        data={
            "jobs": jobs,
            "documents": {path: {"p50_ms": p50, "p95_ms": p95} for path, (p50, p95) in documents.items()},
            "seen": {path: {"ready_ms": each[0], "painted_ms": each[1]} for path, each in seen.items()},
            "tabs": {"count": _TABS, "cores": busy - idle, "cores_without": idle},
        },
        note=f"{_TABS} tabs take {busy - idle:.2f} cores; without them {idle:.2f} are taken.",
        bounds=[
            Bound("slowest page", slowest, _MOST_MS, "ms"),
            Bound(f"{_TABS} open tabs", busy - idle, _MOST_CORES, "cores"),
        ],
    )


def _ids(db: psycopg.Connection) -> dict[str, str]:
    cursor = db.execute(_IDS)
    row = cursor.fetchone()
    assert row is not None
    assert cursor.description is not None
    return {column.name: value for column, value in zip(cursor.description, row, strict=True)}


def _short(path: str) -> str:
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "…", path)


def _entered(client: httpx.Client) -> str:
    """Log in; the cookie of the session."""
    answer = client.post(
        "/login", data={"email": _EMAIL, "password": _PASSWORD}, headers={"Origin": str(client.base_url)}
    )
    if answer.status_code != httpx.codes.SEE_OTHER:
        raise BenchError(f"Logging in is answered by {answer.status_code}.")
    return client.cookies[Cookie.SESSION.value]


def _asked(client: httpx.Client, path: str, times: int) -> tuple[float, float]:
    """The 50th and 95th percentile in milliseconds. The first two do not count: they find cold caches."""
    took = []
    for _ in range(times + 2):
        began = time.perf_counter()
        answer = client.get(path, headers={"Accept": "text/html"})
        took.append((time.perf_counter() - began) * 1000)
        if answer.status_code != httpx.codes.OK:
            raise BenchError(f"{path} is answered by {answer.status_code}.")
    return percentile(took[2:], 50), percentile(took[2:], 95)


def _seen(executable: str, url: str, session: str, pages: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Milliseconds until each page is ready, and until it is painted, medians."""
    cookie = {"name": Cookie.SESSION.value, "value": session, "url": url}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        try:
            took: dict[str, list[tuple[float, float]]] = {path: [] for path in pages}
            _opened(browser, cookie, url + pages[0])  # does not count: a browser begins slowly
            for _ in range(_LOADS):  # in rounds: a machine that is busy for a while slows a round, not a page
                for path in pages:
                    took[path].append(_opened(browser, cookie, url + path))
            return {
                path: (median(ready for ready, _ in each), median(painted for _, painted in each))
                for path, each in took.items()
            }
        finally:
            browser.close()


def _opened(browser: Browser, cookie: dict[str, str], address: str) -> tuple[float, float]:
    """Milliseconds until ready and until painted, with nothing cached."""
    with closing(browser.new_context(viewport={"width": 1360, "height": 900})) as context:
        context.add_cookies([cookie])  # type: ignore[list-item]
        page = context.new_page()
        page.goto(address, wait_until="load")
        ready, painted = page.evaluate(_SEEN)
        return ready, painted


@contextmanager
def _open(url: str, session: str, tabs: Sequence[str]) -> Iterator[None]:
    """Tabs that ask for news, each as often as its page says; they begin at different moments."""
    ended = threading.Event()
    failures: list[str] = []

    def ask_on(path: str, wait: float) -> None:
        cookies = {Cookie.SESSION.value: session}
        with httpx.Client(base_url=url, timeout=60, trust_env=False, cookies=cookies) as client:
            while not ended.wait(wait):
                answer = client.get(path, headers={"X-Live": "1", "Accept": "text/html"})
                asked = re.search(r'data-poll="(\d+)"', answer.text)
                if asked is None:
                    failures.append(f"{path} is answered by {answer.status_code}, and asks for no news.")
                    return
                wait = float(asked[1])

    threads = [
        threading.Thread(target=ask_on, args=(path, number / 7), daemon=True)
        for number, path in enumerate(tabs)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    if failures:
        raise BenchError(failures[0])


def _processes(api_pid: int, db: psycopg.Connection) -> list[psutil.Process]:
    """The API's process and the postmaster."""
    row = db.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    postmaster = psutil.Process(row[0]).parent()
    assert postmaster is not None
    return [psutil.Process(api_pid), postmaster]


def _cores(processes: Sequence[psutil.Process], seconds: float) -> float:
    """Cores that the processes and their children take, on average for so long."""
    began, before = time.monotonic(), _cpu_seconds(processes)
    time.sleep(seconds)
    return (_cpu_seconds(processes) - before) / (time.monotonic() - began)


def _cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """Of those that live, and of their children that have ended and were waited for."""
    taken = 0.0
    for process in processes:
        for each in (process, *process.children(recursive=True)):
            times = each.cpu_times()
            taken += times.user + times.system
        times = process.cpu_times()
        taken += times.children_user + times.children_system
    return taken
