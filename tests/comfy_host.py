"""Starts a real ComfyUI whose only custom node is this pack, and talks to it as any client would.

    reason = why_comfyui_cannot_run()        # a sentence for pytest.skip, or None
    with running_comfyui(tmp_path) as host:
        run = host.wait(host.queue(prompt))  # prompt: API format, {node_id: {class_type, inputs}}
        assert run.executed == {"1", "2"} and run.files

ComfyUI is looked for in $COMFYUI_PATH, then in the ComfyUI this pack is installed in, then in
~/comfy/ComfyUI and folders beside it whose names begin so. One process tests the first of them;
`scripts/dev.py test` starts one for each. Its models, input, output, temp and user folders are empty
ones under the folder given, its database is in memory: nothing of the user's own ComfyUI is read or written.
"""

import functools
import importlib.metadata
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
PACK_FOLDER = "morph-and-drag"
START_TIMEOUT = 240.0  # seconds; importing torch on a busy machine takes most of a minute
RUN_TIMEOUT = 600.0
POLL_INTERVAL = 0.1
ENDINGS = frozenset({"execution_success", "execution_error", "execution_interrupted"})
NOT_NEEDED_TO_START = frozenset({"torchaudio", "comfyui-workflow-templates", "comfyui-embedded-docs"})

Prompt = dict[str, dict[str, Any]]


class ComfyStartError(RuntimeError):
    """ComfyUI did not start, or started without the pack."""


class PromptRejected(RuntimeError):
    """ComfyUI refused to queue a prompt: an unknown node, a missing input, a value out of range."""


class RunFailed(RuntimeError):
    """A node raised while the prompt was running."""


class RunInterrupted(RuntimeError):
    """The run was cancelled before it ended."""


def find_comfyuis() -> list[Path]:
    """The folders to test with, the first of which may not exist. $COMFYUI_PATH may name several, as $PATH does."""
    if configured := os.environ.get("COMFYUI_PATH"):
        return [Path(folder).expanduser() for folder in configured.split(os.pathsep)]
    for parent in REPOSITORY.parents:
        if parent.name == "custom_nodes":
            return [parent.parent]
    usual = Path.home() / "comfy" / "ComfyUI"
    beside = sorted(main.parent for main in usual.parent.glob(f"{usual.name}?*/main.py"))
    return [usual, *beside]


def find_comfyui() -> Path:
    """The folder of the ComfyUI that this process tests with; it may not exist."""
    return find_comfyuis()[0]


def version_of(comfyui: Path) -> str:
    """What a ComfyUI calls itself, such as 0.3.64."""
    about = (comfyui / "comfyui_version.py").read_text(encoding="utf-8")
    return re.search(r'__version__ = "(.+)"', about)[1]


@functools.cache
def why_comfyui_cannot_run() -> str | None:
    """A sentence saying what is missing and what to do about it, or None when ComfyUI can run."""
    comfyui = find_comfyui()
    if not (comfyui / "main.py").is_file():
        return f"No ComfyUI in {comfyui}: set COMFYUI_PATH to a folder that holds its main.py."
    requirements = (comfyui / "requirements.txt").read_text(encoding="utf-8")
    required = re.findall(r"^[A-Za-z0-9][\w.-]*", requirements, flags=re.MULTILINE)
    missing = [
        name for name in [*required, "websocket-client"] if name not in NOT_NEEDED_TO_START and not _is_installed(name)
    ]
    if missing:
        return f"ComfyUI needs {', '.join(missing)}: pip install {' '.join(missing)}."
    return None


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


class RunLog:
    """What ComfyUI's websocket said about each prompt."""

    def __init__(self) -> None:
        self._events: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)

    def add(self, frame: str | bytes) -> None:
        """File one frame; binary ones are preview images and are ignored, as is an empty last one."""
        if isinstance(frame, bytes) or not frame:
            return
        message = json.loads(frame)
        prompt_id = (message.get("data") or {}).get("prompt_id")
        if prompt_id is not None:
            self._events[prompt_id].append((message["type"], message["data"]))

    def executed(self, prompt_id: str) -> frozenset[str]:
        """Ids of the nodes that were run, cached ones excluded."""
        events = self._events[prompt_id]
        return frozenset(data["node"] for kind, data in events if kind == "executing" and data["node"])

    def cached(self, prompt_id: str) -> frozenset[str]:
        """Ids of the nodes whose earlier result was still good when the run began."""
        events = self._events[prompt_id]
        return frozenset(node for kind, data in events if kind == "execution_cached" for node in data["nodes"])

    def has_ended(self, prompt_id: str) -> bool:
        return any(kind in ENDINGS for kind, _ in self._events[prompt_id])


@dataclass(frozen=True)
class Run:
    """A prompt that ran to its end."""

    prompt_id: str
    entry: dict[str, Any]  # as /history gives it
    executed: frozenset[str]  # node ids
    cached: frozenset[str]
    files: tuple[Path, ...]  # what the output nodes saved, previews included

    @property
    def prompt(self) -> Prompt:
        """The prompt as ComfyUI received it."""
        return self.entry["prompt"][2]

    def was_executed(self, node_id: str) -> bool:
        return node_id in self.executed

    def was_cached(self, node_id: str) -> bool:
        return node_id in self.cached


class ComfyHost:
    """A client of one running ComfyUI. `url` has no trailing slash; `folder` holds its data."""

    def __init__(self, url: str, folder: Path, log_file: Path) -> None:
        self.url = url
        self.input_folder = folder / "input"
        self.output_folder = folder / "output"
        self.temp_folder = folder / "temp"
        self._log_file = log_file
        self._client_id = uuid.uuid4().hex
        self._run_log = RunLog()
        self._socket: Any = None

    def connect(self) -> None:
        """Open the websocket through which ComfyUI reports the runs queued by this client."""
        import websocket

        address = self.url.replace("http", "ws", 1)
        self._socket = websocket.create_connection(f"{address}/ws?clientId={self._client_id}")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def log_text(self) -> str:
        """Everything ComfyUI has written to its console so far."""
        return self._log_file.read_text(encoding="utf-8", errors="replace")

    def log_tail(self, lines: int = 40) -> str:
        """The last lines ComfyUI has written to its console."""
        return "\n".join(self.log_text().splitlines()[-lines:])

    def get(self, path: str) -> Any:
        """The JSON answer to GET `path`."""
        return self._request(path)

    def post(self, path: str, body: Any) -> Any:
        """The JSON answer to POST `path` with `body` as JSON, or None when it is empty."""
        return self._request(path, body)

    def object_info(self) -> dict[str, dict[str, Any]]:
        """The definition of every registered node, by node id."""
        return self.get("/object_info")

    def queue(self, prompt: Prompt) -> str:
        """Queue `prompt` and return its id; raise PromptRejected when ComfyUI finds it invalid."""
        try:
            answer = self.post("/prompt", {"prompt": prompt, "client_id": self._client_id})
        except urllib.error.HTTPError as error:
            raise PromptRejected(f"{error}\n{_readable(error.read())}") from None
        if answer["node_errors"]:  # ComfyUI queues the branches that are valid all the same
            raise PromptRejected(_indented(answer["node_errors"]))
        return answer["prompt_id"]

    def wait(self, prompt_id: str, timeout: float = RUN_TIMEOUT) -> Run:
        """Wait for a prompt queued here to end; raise RunFailed with the node's own traceback."""
        deadline = time.monotonic() + timeout
        while not self._run_log.has_ended(prompt_id):
            self._receive(deadline, f"The run had not ended after {timeout:.0f} s.")
        return self.finished_run(prompt_id, self._run_log)

    def wait_until_executing(self, prompt_id: str, node_id: str, timeout: float = RUN_TIMEOUT) -> None:
        """Return as soon as a node of a prompt queued here has begun to run."""
        deadline = time.monotonic() + timeout
        while node_id not in self._run_log.executed(prompt_id):
            if self._run_log.has_ended(prompt_id):
                raise RunFailed(f"The run ended and node {node_id} had not been executed.")
            self._receive(deadline, f"Node {node_id} had not begun after {timeout:.0f} s.")

    def interrupt(self) -> None:
        """Cancel the run in progress, as the front end's cancel button does."""
        self.post("/interrupt", {})

    def free_memory(self) -> None:
        """Drop models and cached results before any later prompt; ComfyUI may notice the request only after one."""
        self.post("/free", {"unload_models": True, "free_memory": True})
        image = {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}}
        shown = {"class_type": "PreviewImage", "inputs": {"images": ["image", 0]}}
        self.wait(self.queue({"image": image, "shown": shown}))

    def finished_run(self, prompt_id: str, run_log: RunLog) -> Run:
        """Describe a prompt that has ended, whoever queued it; raise if it did not succeed."""
        entry = self._history_entry(prompt_id)
        _raise_if_failed(entry)
        return Run(
            prompt_id=prompt_id,
            entry=entry,
            executed=run_log.executed(prompt_id),
            cached=run_log.cached(prompt_id),
            files=tuple(self._saved_files(entry)),
        )

    def _receive(self, deadline: float, complaint: str) -> None:
        import websocket

        self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            self._run_log.add(self._socket.recv())
        except websocket.WebSocketTimeoutException:
            raise TimeoutError(f"{complaint} ComfyUI's log ends:\n{self.log_tail()}") from None
        except (websocket.WebSocketException, OSError) as error:
            raise RunFailed(f"ComfyUI is gone. Its log ends:\n{self.log_tail()}") from error

    def _history_entry(self, prompt_id: str) -> dict[str, Any]:
        # The history is written just after the websocket announces the end of the run.
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if entry := self.get(f"/history/{prompt_id}").get(prompt_id):
                return entry
            time.sleep(POLL_INTERVAL)
        raise TimeoutError(f"Prompt {prompt_id} never appeared in ComfyUI's history.")

    def _saved_files(self, entry: dict[str, Any]) -> Iterator[Path]:
        folders = {
            "input": self.input_folder,
            "output": self.output_folder,
            "temp": self.temp_folder,
        }
        for shown in entry["outputs"].values():
            for values in shown.values():
                for value in values:
                    if isinstance(value, dict) and "filename" in value:
                        yield folders[value["type"]] / value["subfolder"] / value["filename"]

    def _request(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers={"Content-Type": "application/json"})
        with _direct_opener().open(request, timeout=60) as answer:
            content = answer.read()
        return json.loads(content) if content else None


def _direct_opener() -> urllib.request.OpenerDirector:
    """An opener that ignores proxy settings, which would not know this loopback server."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _readable(content: bytes) -> str:
    try:
        return _indented(json.loads(content))
    except ValueError:
        return content.decode(errors="replace")


def _indented(value: Any) -> str:
    return json.dumps(value, indent=2)


def _raise_if_failed(entry: dict[str, Any]) -> None:
    messages = dict(entry["status"]["messages"])
    if error := messages.get("execution_error"):
        raise RunFailed(
            f"Node {error['node_id']} ({error['node_type']}) failed: "
            f"{error['exception_type']}: {error['exception_message'].strip()}\n" + "".join(error["traceback"])
        )
    if interrupted := messages.get("execution_interrupted"):
        raise RunInterrupted(f"Cancelled in node {interrupted['node_id']} ({interrupted['node_type']}).")
    if not entry["status"]["completed"]:
        raise RunFailed(f"The run ended without success:\n{_indented(entry['status'])}")


@contextmanager
def running_comfyui(folder: Path, arguments: Sequence[str] = ()) -> Iterator[ComfyHost]:
    """Run ComfyUI on the CPU with this pack, all its data under `folder`, until the block ends.

    `folder` exists and is empty, as pytest's tmp_path is.
    `arguments` are further command-line options of ComfyUI, such as ("--cache-none",).
    """
    base = _prepared_base(folder / "comfyui")
    port = _free_port()
    log_file = folder / "comfyui.log"
    host = ComfyHost(f"http://127.0.0.1:{port}", base, log_file)
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [*_command(base, port), *arguments],
            cwd=find_comfyui(),
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    try:
        _wait_until_it_answers(host, process)
        host.connect()
        yield host
    finally:
        host.close()
        _stop(process)


def _prepared_base(base: Path) -> Path:
    for name in ("custom_nodes", "input", "output"):
        (base / name).mkdir(parents=True)
    (base / "custom_nodes" / PACK_FOLDER).symlink_to(REPOSITORY, target_is_directory=True)
    return base


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _command(base: Path, port: int) -> list[str]:
    # The whitelist keeps out packs that an extra_model_paths.yaml of the user's may name.
    return [
        *(sys.executable, "main.py", "--cpu", "--disable-auto-launch"),
        *("--listen", "127.0.0.1", "--port", str(port)),
        *("--base-directory", str(base), "--database-url", "sqlite:///:memory:"),
        *("--disable-api-nodes", "--disable-all-custom-nodes"),
        *("--whitelist-custom-nodes", PACK_FOLDER),
    ]


def _wait_until_it_answers(host: ComfyHost, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not _answers(host):
        if process.poll() is not None:
            raise ComfyStartError(f"ComfyUI exited while starting:\n{host.log_text()}")
        if time.monotonic() > deadline:
            raise ComfyStartError(f"ComfyUI did not answer in time:\n{host.log_text()}")
        time.sleep(POLL_INTERVAL)
    if re.search(rf"IMPORT FAILED.*{PACK_FOLDER}", host.log_text()):
        raise ComfyStartError(f"ComfyUI could not import the pack:\n{host.log_text()}")


def _answers(host: ComfyHost) -> bool:
    try:
        host.get("/system_stats")
    except OSError:
        return False
    return True


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
