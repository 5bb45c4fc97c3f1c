"""Set up everything in a virtual environment of this folder, then run the demo, the tests or the checks.

    python scripts/dev.py demo     # a toy morph, without ComfyUI; prints where the pictures are
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
sys.path.insert(0, str(ROOT / "tests"))

from comfy_host import NOT_NEEDED_TO_START, find_comfyui  # noqa: E402


def comfyui_requirements() -> Path | None:
    """ComfyUI's requirements, without those it starts without; None where there is no ComfyUI."""
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


def set_up(files: list[Path]) -> None:
    """Install what the files list, unless exactly that was installed before."""
    wanted = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    stamp = ENVIRONMENT / f"installed-{wanted[:16]}"
    if stamp.exists():
        return
    requirements = [argument for path in files for argument in ("-r", str(path))]
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", *requirements], check=True)
    stamp.touch()


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in ("demo", "test", "check"):
        print(__doc__)
        return 2
    task, *rest = sys.argv[1:]
    if not PYTHON.exists():
        print(f"creating {ENVIRONMENT}; the first set-up downloads PyTorch and takes some minutes", flush=True)
        venv.create(ENVIRONMENT, with_pip=True)
    files = [ROOT / "requirements.txt"]
    if task != "demo":
        files.append(ROOT / "requirements-dev.txt")
        comfyui = comfyui_requirements()
        files += [comfyui] if comfyui else []
    set_up(files)
    commands: dict[str, list[list[str]]] = {
        "demo": [[str(ROOT / "scripts" / "demo.py"), *rest]],
        "test": [["-m", "pytest", *rest]],
        "check": [["-m", "ruff", "check"], ["-m", "ruff", "format", "--check"], ["-m", "mypy"]],
    }
    for command in commands[task]:
        code = subprocess.run([PYTHON, *command], cwd=ROOT).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
