"""Check the JavaScript: format and lint with Biome, types with TypeScript. Needs npm, which installs both.

    python scripts/check_javascript.py

Without npm nothing is checked, which is said. MORPH_REQUIRE, a list with commas, names what may not be missing: with
`node` in it, that fails.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "package-lock.json"
INSTALLED = ROOT / "node_modules" / ".installed-lock"  # the lock's hash; npm ci removes it with the rest
CHECKS = (["biome", "ci", "--colors=off"], ["tsc", "--pretty", "false"])


def is_required() -> bool:
    return "node" in [name.strip() for name in os.environ.get("MORPH_REQUIRE", "").split(",")]


def install(npm: str) -> int:
    """Install what the lock says, unless exactly that is installed."""
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if INSTALLED.is_file() and INSTALLED.read_text(encoding="ascii") == wanted:
        return 0
    code = subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=ROOT).returncode
    if code == 0:
        INSTALLED.write_text(wanted, encoding="ascii")
    return code


def main() -> int:
    npm = shutil.which("npm")
    if npm is None:
        print("The JavaScript is not checked: npm is missing. It comes with Node.js, from nodejs.org.", flush=True)
        return 1 if is_required() else 0
    code = install(npm)
    for check in CHECKS:
        code = code or subprocess.run([npm, "exec", "--no", "--", *check], cwd=ROOT).returncode
    return code


if __name__ == "__main__":
    sys.exit(main())
