"""Set up everything in a virtual environment of this folder, then run the demo, the tests or the checks.

    python scripts/dev.py demo     # a toy morph and a toy drag, without ComfyUI; prints where the pictures are
    python scripts/dev.py test     # the test suite; with ComfyUI and Chromium too where they are found
    python scripts/dev.py check    # lint, format, types

Needs Python 3.10 or newer and nothing else. More arguments go to the demo (see --help there) or to pytest.
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
READY = ENVIRONMENT / "ready"
COMMANDS: dict[str, list[list[str]]] = {
    "demo": [[str(ROOT / "scripts" / "demo.py")]],
    "test": [["-m", "pytest"]],
    "check": [["-m", "ruff", "check"], ["-m", "ruff", "format", "--check"], ["-m", "mypy"]],
}


def make_environment() -> None:
    """A virtual environment with pip, anew if an earlier attempt was cut short."""
    if READY.exists():
        return
    print(f"creating {ENVIRONMENT}; the first set-up downloads PyTorch and takes some minutes", flush=True)
    try:
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
    except subprocess.CalledProcessError:
        sys.exit("Python's venv module cannot install pip here; on Debian or Ubuntu: apt install python3-venv")
    READY.touch()


def comfyui_requirements() -> Path | None:
    """ComfyUI's requirements, without those it starts without; None where there is no ComfyUI."""
    sys.path.insert(0, str(ROOT / "tests"))
    from comfy_host import NOT_NEEDED_TO_START, find_comfyui

    listed = find_comfyui() / "requirements.txt"
    if not listed.is_file():
        return None
    kept = [
        line
        for line in listed.read_text(encoding="utf-8").splitlines()
        if line.split("=")[0].split(">")[0].strip() not in NOT_NEEDED_TO_START
    ]
    filtered = ENVIRONMENT / "comfyui-requirements.txt"
    filtered.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return filtered


def requirements_of(task: str) -> list[Path]:
    """The requirement files a task needs."""
    if task == "demo":
        return [ROOT / "requirements.txt"]
    files = [ROOT / "requirements.txt", ROOT / "requirements-dev.txt", comfyui_requirements()]
    return [file for file in files if file]


def install(files: list[Path]) -> None:
    """Install what the files list, unless exactly that was installed before."""
    wanted = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    stamp = ENVIRONMENT / f"installed-{wanted[:16]}"
    if stamp.exists():
        return
    requirements = [argument for path in files for argument in ("-r", str(path))]
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", *requirements], check=True)
    stamp.touch()


def fetch_newest_front_end() -> None:
    """ComfyUI's newest front end beside the one it asks for: the browser tests run on both."""
    folder = ENVIRONMENT / "newest-front-end"
    if not folder.exists():
        package = ["--no-deps", "--target", str(folder), "comfyui-frontend-package"]
        subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", *package], check=True)


def main() -> int:
    if sys.version_info < (3, 10):  # noqa: UP036 - not installed yet, so nothing else has checked
        print(f"Morph & Drag needs Python 3.10 or newer; this is {sys.version.split()[0]}")
        return 2
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        print(__doc__)
        return 2
    task, *rest = sys.argv[1:]
    make_environment()
    install(requirements_of(task))
    if task == "test" and comfyui_requirements():
        fetch_newest_front_end()
    for command in COMMANDS[task]:
        code = subprocess.run([PYTHON, *command, *rest], cwd=ROOT).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
