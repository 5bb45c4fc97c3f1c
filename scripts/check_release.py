"""Is this folder ready to be published under a tag? What is missing is printed, and fails.

    python scripts/check_release.py v0.1.0 https://host/owner/name

The second argument is where the repository is. Needs Python 3.11 or newer; see docs/release.md.
"""

import sys
from pathlib import Path

import tomllib

PLACEHOLDER = "…"  # what pyproject.toml has where nothing was filled in
ROOT = Path(__file__).resolve().parent.parent


def missing(tag: str, address: str, pyproject: str, changelog: str) -> list[str]:
    """What stands against publishing these two files' texts under the tag, one sentence each."""
    read = tomllib.loads(pyproject)
    version = read["project"]["version"]
    named = read["project"].get("urls", {}).get("Repository")
    found = []
    if tag != f"v{version}":
        found.append(
            f"the tag is {tag}, but pyproject.toml's version is {version}: tag v{version}, or change the version"
        )
    if named != address:
        found.append(f"Repository in pyproject.toml is {named or 'not filled in'}; this repository is {address}")
    if read["tool"]["comfy"].get("PublisherId", PLACEHOLDER) == PLACEHOLDER:
        found.append("PublisherId in pyproject.toml is not filled in")
    if f"## [{version}]" not in changelog:
        found.append(f"CHANGELOG.md has no section ## [{version}]")
    return found


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__)
        return 2
    texts = ((ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "CHANGELOG.md"))
    found = missing(*sys.argv[1:], *texts)
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
