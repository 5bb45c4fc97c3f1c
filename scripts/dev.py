"""Set up everything in a virtual environment of this folder, then run the demo, the tests or the checks.

    python scripts/dev.py demo     # a toy morph and a toy drag, without ComfyUI; prints where the pictures are
    python scripts/dev.py test     # the quick tests, some minutes; with ComfyUI and Chromium too where they are found
    python scripts/dev.py test --all    # the slow ones too, and with every further ComfyUI
    python scripts/dev.py check    # lint, format, types; of the JavaScript where there is npm

Needs Python 3.10 or newer and nothing else. More arguments go to the demo (see --help there) or to pytest.
Every ComfyUI that is found (tests/comfy_host.py says where) has an environment of its own.
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036 - not installed yet, so nothing else has checked
    sys.exit(f"Morph & Drag needs Python 3.10 or newer; this is {sys.version.split()[0]}")

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "Scripts/python.exe" if os.name == "nt" else "bin/python"
LIBRARY = [ROOT / "requirements.txt", ROOT / "requirements-library.txt"]
WITH_COMFYUI = ("tests/nodes", "tests/workflows", "tests/browser")
WITH_A_RUNNING_ONE = ("tests/workflows", "tests/browser")
OTHERS = ("tests/nodes", "tests/core", "tests/js", "tests/requirements", "tests/scripts")
TWO_PROCESSES = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")  # what takes longest is named first
QUICK = ("-m", "not slow and not full_size and not package_index and not benchmark")
ALL = "--all"
NO_TESTS = 5  # pytest's exit code where the arguments leave none
COMMANDS: dict[str, list[list[str]]] = {
    "demo": [[str(ROOT / "scripts" / "demo.py")]],
    "check": [
        ["-m", "ruff", "check"],
        ["-m", "ruff", "format", "--check"],
        ["-m", "mypy"],
        [str(ROOT / "scripts" / "check_javascript.py")],
    ],
}
sys.path.insert(0, str(ROOT / "tests"))
from comfy_host import NOT_NEEDED_TO_START, find_comfyuis, version_of  # noqa: E402


class Environment:
    """A virtual environment in this folder: `.venv`, or a further one for a further ComfyUI."""

    def __init__(self, name: str = ".venv") -> None:
        self.folder = ROOT / name

    @property
    def python(self) -> Path:
        return self.folder / PYTHON

    @property
    def newest_front_end(self) -> Path:
        return self.folder / "newest-front-end" / "comfyui_frontend_package" / "static"

    def make(self) -> None:
        """Create it with pip, anew if an earlier attempt was cut short."""
        ready = self.folder / "ready"
        if ready.exists():
            return
        print(f"creating {self.folder}; the first set-up downloads PyTorch and takes some minutes", flush=True)
        try:
            venv.create(self.folder, with_pip=True, clear=True)
        except subprocess.CalledProcessError:
            sys.exit("Python's venv module cannot install pip here; on Debian or Ubuntu: apt install python3-venv")
        ready.touch()

    def install(self, files: list[Path]) -> None:
        """Install what the files list, unless exactly that was installed before."""
        wanted = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
        stamp = self.folder / f"installed-{wanted[:16]}"
        if stamp.exists():
            return
        self.pip("install", *(argument for path in files for argument in ("-r", str(path))))
        stamp.touch()

    def install_for_tests(self, comfyui: Path | None) -> None:
        """Install the pack's requirements, the tests' and those of a ComfyUI, and its newest front end."""
        files = [*LIBRARY, ROOT / "requirements-dev.txt"]
        if comfyui:
            files.append(self._needed_to_start(comfyui))
        self.install(files)
        if comfyui:
            self._stand_in_for_torchaudio()
            self._fetch_newest_front_end()

    def pip(self, *arguments: str) -> None:
        subprocess.run([self.python, "-m", "pip", *arguments, "--quiet"], check=True)

    def _needed_to_start(self, comfyui: Path) -> Path:
        """ComfyUI's requirements, without those it starts without."""
        lines = (comfyui / "requirements.txt").read_text(encoding="utf-8").splitlines()
        needed = [line for line in lines if line.split("=")[0].split(">")[0].strip() not in NOT_NEEDED_TO_START]
        filtered = self.folder / "comfyui-requirements.txt"
        filtered.write_text("\n".join(needed) + "\n", encoding="utf-8")
        return filtered

    def _stand_in_for_torchaudio(self) -> None:
        """Newer ComfyUIs import torchaudio as they start, for sound; it has no build for every PyTorch."""
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        packages = subprocess.run([self.python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
        (Path(packages) / "stand_ins.pth").write_text(f"{ROOT / 'tests' / 'stand_ins'}\n", encoding="utf-8")

    def _fetch_newest_front_end(self) -> None:
        """ComfyUI's newest front end beside the one it asks for: the browser tests run on both."""
        if not self.newest_front_end.exists():
            target = self.newest_front_end.parents[1]
            self.pip("install", "--no-deps", "--target", str(target), "comfyui-frontend-package")


def run(python: Path, command: list[str], **variables: str) -> int:
    return subprocess.run([python, *command], cwd=ROOT, env={**os.environ, **variables}).returncode


def test(arguments: list[str]) -> int:
    """The quick tests, or all, with the first ComfyUI, where there is one, and its own and the newest front end.

    All, and tests that are named, also with each further ComfyUI, with the newest front end.
    """
    comfyuis = [folder for folder in find_comfyuis() if (folder / "main.py").is_file()]
    results = {}
    for number, comfyui in enumerate(comfyuis[: None if arguments else 1] or [None]):
        environment = Environment(f".venv-{comfyui.name}" if comfyui and number else ".venv")
        environment.make()
        environment.install_for_tests(comfyui)
        variables = {"COMFYUI_PATH": str(comfyui)} if comfyui else {}
        if number:
            variables |= {"MORPH_FRONT_END_ROOT": str(environment.newest_front_end)}
        name = f"ComfyUI {version_of(comfyui)} in {comfyui}" if comfyui else "no ComfyUI"
        runs = pytest_runs(arguments, is_further=number > 0)
        codes = [run_pytest(environment.python, one, **variables) for one in runs]
        results[name] = max((0 if number and code == NO_TESTS else code for code in codes), key=abs)
    for name, code in results.items():
        print(f"tests with {name}: {'failed' if code else 'passed'}", flush=True)
    return max(results.values(), key=abs)


def pytest_runs(arguments: list[str], is_further: bool) -> list[list[str]]:
    """pytest's arguments for one run after the other. is_further: with a ComfyUI after the first.

    With a further one all tests are those of the nodes and the quick ones of workflows: others by name.
    """
    named = [argument for argument in arguments if argument != ALL]
    if named:
        names_tests = any((ROOT / argument.partition("::")[0]).exists() for argument in named)
        return [[*(WITH_COMFYUI if is_further and not names_tests else ()), *named]]
    if ALL not in arguments:  # one ComfyUI is started for all that need one running
        return [[*OTHERS, *TWO_PROCESSES, *QUICK], [*WITH_A_RUNNING_ONE, *QUICK]]
    if is_further:
        return [["tests/workflows", *QUICK], ["tests/nodes", *TWO_PROCESSES]]
    # Pages apart: what drives a browser leaves an event loop running, in which ComfyUI's nodes cannot be imported.
    return [[*WITH_A_RUNNING_ONE, *TWO_PROCESSES], [*OTHERS, *TWO_PROCESSES]]


def run_pytest(python: Path, arguments: list[str], **variables: str) -> int:
    threads = {"OMP_NUM_THREADS": "1"} if "-n" in arguments else {}  # one thread for each of several processes
    return run(python, ["-m", "pytest", *arguments], **threads, **variables)


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in {*COMMANDS, "test"}:
        print(__doc__)
        return 2
    task, *rest = sys.argv[1:]
    if task == "test":
        return test(rest)
    environment = Environment()
    environment.make()
    if task == "demo":
        environment.install(LIBRARY)
    else:
        environment.install_for_tests(next((folder for folder in find_comfyuis() if folder.is_dir()), None))
    for command in COMMANDS[task]:
        code = run(environment.python, [*command, *rest])
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
