"""Set up everything in a virtual environment of this folder, then run the demo, the tests or the checks.

    python scripts/dev.py demo     # a toy morph and a toy drag, without ComfyUI; prints where the pictures are
    python scripts/dev.py test     # the test suite; with ComfyUI and Chromium too where they are found
    python scripts/dev.py check    # lint, format, types; of the JavaScript where there is npm

Needs Python 3.10 or newer and nothing else. More arguments go to the demo (see --help there) or to pytest.
Every ComfyUI that is found (tests/comfy_host.py says where) is tested with, each in an environment of its own.
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
SIDE_BY_SIDE = ("-n", "2", "--dist", "loadfile")  # two processes, each with one thread
IN_TURN = ("tests/workflows", "tests/browser")  # a page waits only so long for what a busy machine does
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
    """The whole suite with the first ComfyUI, where there is one, with its own front end and with the newest.

    Then what needs ComfyUI with each further one, with the newest front end.
    """
    comfyuis = [folder for folder in find_comfyuis() if (folder / "main.py").is_file()]
    results = {}
    for number, comfyui in enumerate(comfyuis or [None]):
        environment = Environment(f".venv-{comfyui.name}" if comfyui and number else ".venv")
        environment.make()
        environment.install_for_tests(comfyui)
        variables = {"COMFYUI_PATH": str(comfyui)} if comfyui else {}
        if number:
            variables |= {"MORPH_FRONT_END_ROOT": str(environment.newest_front_end)}
        name = f"ComfyUI {version_of(comfyui)} in {comfyui}" if comfyui else "no ComfyUI"
        results[name] = run_tests(environment.python, arguments, is_further=number > 0, **variables)
    for name, code in results.items():
        print(f"tests with {name}: {'failed' if code else 'passed'}", flush=True)
    return max(results.values(), key=abs)


def run_tests(python: Path, arguments: list[str], is_further: bool, **variables: str) -> int:
    """Those that the arguments name, or all. is_further: with a ComfyUI after the first, only what needs one."""
    if not arguments:
        tests = ("tests/nodes",) if is_further else ("tests/core", "tests/js", "tests/nodes", "tests/requirements")
        first = run(python, ["-m", "pytest", *tests, *SIDE_BY_SIDE], OMP_NUM_THREADS="1", **variables)
        if is_further:  # workflows and pages there by name: dev.py test tests/workflows
            return first
        return run(python, ["-m", "pytest", *IN_TURN], **variables) or first
    names_tests = any((ROOT / argument.partition("::")[0]).exists() for argument in arguments)
    tests = WITH_COMFYUI if is_further and not names_tests else ()
    code = run(python, ["-m", "pytest", *tests, *arguments], **variables)
    return 0 if is_further and code == NO_TESTS else code


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
