"""Drives ComfyUI's page in Chromium as a user would: open a workflow file, press Run, look.

It is written against what front ends 1.27 to 1.58 share: the hidden file input behind the Open
command, the Run button's test id, and `window.app`.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morph_tests.comfy_host import RUN_TIMEOUT, ComfyHost, PromptRejected, Run, RunLog

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, Playwright, Response

CHROMIUM_COMMANDS = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # the page sees ComfyUI only
)
VIEWPORT = {"width": 1600, "height": 1000}
PAGE_TIMEOUT = 120.0  # seconds; the first load of the front end on a busy machine
RETURNING_USER = {  # without these a new user is shown the template browser, and the mini map
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
}

RUN_BUTTON = 'button[data-testid="queue-button"], [data-testid="queue-button"] button'
FILE_INPUT = "#comfy-file-input"
DIALOGS = '[role="dialog"]:visible, [role="alertdialog"]:visible'
FIT_VIEW_SECONDS = 1.0  # the canvas glides to the new view, then redraws

PAGE_IS_READY = "() => Boolean(window.app?.extensionManager?.workflow?.activeWorkflow)"
WORKFLOW_IS_OPEN = """([name, count]) =>
    window.app.extensionManager.workflow.activeWorkflow?.filename === name &&
    window.app.graph.nodes.length === count"""
UNKNOWN_NODE_TYPES = """() => {
    const inGraph = (graph) => graph.nodes.flatMap(
        (node) => [node.type, ...(node.subgraph ? inGraph(node.subgraph) : [])]);
    return inGraph(window.app.graph).filter((type) => !LiteGraph.registered_node_types[type]);
}"""
# The front end logs what an extension threw as {error}, which a console shows without the stack
# that tells whose code it was. The last line added is the caller, lost by wrapping console.error.
LOG_STACKS = """{
    const log = console.error;
    const stack = (value) => value instanceof Error ? value.stack : value;
    console.error = (...values) => log(
        ...values.map((value) => value?.error instanceof Error ? value.error.stack : stack(value)),
        new Error().stack.split("\\n")[2],
    );
}"""
FIT_VIEW = "() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')"


def why_page_cannot_open() -> str | None:
    """A sentence saying what is missing and what to do about it, or None."""
    if importlib.util.find_spec("playwright") is None:
        return "Browser tests need Playwright: pip install playwright."
    return None


class NoChromium(RuntimeError):
    """There is no browser to drive."""


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """A headless Chromium: the system's own, else Playwright's; raise NoChromium without either."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_chromium(playwright), args=CHROMIUM_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def _chromium(playwright: Playwright) -> str:
    commands = map(shutil.which, CHROMIUM_COMMANDS)
    if found := next(filter(None, commands), None):
        return found
    bundled = playwright.chromium.executable_path
    if not Path(bundled).is_file():
        raise NoChromium(
            "Browser tests need Chromium: install the system's package, or run `playwright install chromium`."
        )
    return bundled


@dataclass(frozen=True)
class PageError:
    """An error the browser's console shows, or an uncaught exception (its url is then empty)."""

    text: str
    url: str


class ComfyPage:
    """One open page of ComfyUI's front end. `page` is Playwright's, for whatever is not here."""

    def __init__(self, page: Page, host: ComfyHost) -> None:
        self.page = page
        self.errors: list[PageError] = []
        self._host = host
        self._run_log = RunLog()
        page.add_init_script(LOG_STACKS)
        page.on("console", self._note_console)
        page.on("pageerror", self._note_exception)
        page.on("websocket", lambda socket: socket.on("framereceived", self._run_log.add))

    def open(self, settings: Mapping[str, Any]) -> None:
        """Load the front end with a user's `settings` and wait until it is ready to work with."""
        self._host.post("/settings", {**RETURNING_USER, **settings})
        self.page.goto(self._host.url)
        self.page.wait_for_function(PAGE_IS_READY, timeout=PAGE_TIMEOUT * 1000)
        self.close_dialogs()

    def load(self, workflow: Path) -> None:
        """Open a workflow file through the file input behind the front end's Open command."""
        nodes = json.loads(workflow.read_text(encoding="utf-8"))["nodes"]
        self.page.set_input_files(FILE_INPUT, workflow)
        self.page.wait_for_function(WORKFLOW_IS_OPEN, arg=[workflow.stem, len(nodes)], timeout=PAGE_TIMEOUT * 1000)

    def unknown_node_types(self) -> list[str]:
        """Types of the nodes in the graph, subgraphs included, that the front end does not know."""
        return self.page.evaluate(UNKNOWN_NODE_TYPES)

    def dialogs(self) -> list[str]:
        """The text of each dialog in front of the graph."""
        return self.page.locator(DIALOGS).all_inner_texts()

    def close_dialogs(self) -> None:
        """Close whatever the front end shows unasked."""
        while self.dialogs():
            self.page.keyboard.press("Escape")
            self.page.locator(DIALOGS).last.wait_for(state="hidden")

    def run(self, timeout: float = RUN_TIMEOUT) -> Run:
        """Press the Run button and wait for the end; raise what the run raised."""
        prompt_id = self._press_run()
        deadline = time.monotonic() + timeout
        while not self._run_log.has_ended(prompt_id):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"The run had not ended after {timeout:.0f} s. ComfyUI's log ends:\n{self._host.log_tail()}"
                )
            self.page.wait_for_timeout(100)
        return self._host.finished_run(prompt_id, self._run_log)

    def screenshot(self, path: Path) -> Path:
        """Save a picture of the page with the whole graph in view."""
        self.page.evaluate(FIT_VIEW)
        self.page.wait_for_timeout(FIT_VIEW_SECONDS * 1000)
        self.page.screenshot(path=path)
        return path

    def errors_naming(self, pattern: str) -> list[PageError]:
        """Errors whose text or URL matches, except failed requests to other servers."""
        matches = re.compile(pattern, re.IGNORECASE).search
        return [
            error
            for error in self.errors
            if (not error.url or error.url.startswith(self._host.url)) and matches(f"{error.text} {error.url}")
        ]

    def _press_run(self) -> str:
        with self.page.expect_response(_queues_a_prompt) as answer:
            self.page.locator(RUN_BUTTON).first.click()
        queued = answer.value.json()
        if queued["node_errors"] or not answer.value.ok:
            raise PromptRejected(answer.value.text())
        return queued["prompt_id"]

    def _note_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(PageError(message.text, message.location["url"]))

    def _note_exception(self, error: Error) -> None:
        self.errors.append(PageError(error.stack or error.message, ""))


def _queues_a_prompt(response: Response) -> bool:
    return response.request.method == "POST" and response.url.endswith("/api/prompt")


@contextmanager
def open_comfy_page(browser: Browser, host: ComfyHost, settings: Mapping[str, Any]) -> Iterator[ComfyPage]:
    """A page of `host` in a browser profile of its own.

    `settings` go by the front end's own ids; ComfyUI keeps them for the pages opened after this.
    """
    with browser_profile(browser) as profile, open_page_of(profile, host, settings) as comfy_page:
        yield comfy_page


@contextmanager
def browser_profile(browser: Browser) -> Iterator[BrowserContext]:
    """A new profile, for pages that may share what the browser keeps of the front end's files."""
    profile = browser.new_context(viewport=VIEWPORT)
    try:
        yield profile
    finally:
        profile.close()


@contextmanager
def open_page_of(profile: BrowserContext, host: ComfyHost, settings: Mapping[str, Any]) -> Iterator[ComfyPage]:
    """As `open_comfy_page`, in a profile from which earlier pages' workflows are forgotten."""
    page = profile.new_page()
    try:
        page.add_init_script("localStorage.clear()")
        comfy_page = ComfyPage(page, host)
        comfy_page.open(settings)
        yield comfy_page
    finally:
        page.close()
