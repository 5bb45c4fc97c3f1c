"""What installing requirements would do to a recorded environment, without downloading any of it.

A recording lists `name==version` and, indented below, what that package asks for. The recorded packages are set up
as their metadata alone in a virtual environment, which is all that pip looks at before it installs.
"""

import json
import re
import shutil
import subprocess
import venv
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@dataclass
class Recording:
    """An environment as a text file has it. packages: version and requirements by name."""

    pythons: list[tuple[str, str]] = field(default_factory=list)  # such as ("3.13", "win32")
    packages: dict[str, tuple[str, list[str]]] = field(default_factory=dict)


def read_recording(file: Path) -> Recording:
    recording = Recording()
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("python "):
            _, version, platform = line.split()
            recording.pythons.append((version, platform))
        elif line.startswith("    "):
            list(recording.packages.values())[-1][1].append(line.strip())
        elif line and not line.startswith("#"):
            name, version = line.split("==")
            recording.packages[canonicalize_name(name)] = (version, [])
    return recording


def requirement_lines(file: Path, python: tuple[str, str]) -> list[str]:
    """The lines of a requirements file that are for that Python, without their markers: this one's may differ."""
    version, platform = python
    chosen = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not (text := line.partition("#")[0].strip()):
            continue
        requirement = Requirement(text)
        about = {"python_version": version, "sys_platform": platform}
        if requirement.marker is None or requirement.marker.evaluate(about):
            chosen.append(f"{requirement.name}{requirement.specifier}")
    return chosen


class Environment:
    """A virtual environment whose packages are metadata alone."""

    def __init__(self, folder: Path, recording: Recording) -> None:
        venv.create(folder, with_pip=True)
        self._python = next(path for path in (folder / "bin/python", folder / "Scripts/python.exe") if path.exists())
        self._packages = next(folder.glob("[Ll]ib/**/site-packages"))
        for outside in ("pip", "setuptools"):  # as in the recorded environment, not what came with this one
            recording.packages.pop(outside, None)
        for name, (version, asks) in recording.packages.items():
            self._set(name, version, asks)

    def versions(self) -> dict[str, str]:
        found = [re.fullmatch(r"(.+?)-([^-]+)\.dist-info", path.name) for path in self._packages.iterdir()]
        return {canonicalize_name(match[1]): match[2] for match in found if match}

    def install(self, requirements: Iterable[str]) -> None:
        """Set the environment to what one `pip install` of the requirements would make of it."""
        command = [self._python, "-m", "pip", "install", "--dry-run", "--quiet", "--report", "-", *requirements]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if answer.returncode:
            raise RuntimeError(answer.stderr)
        for item in json.loads(answer.stdout)["install"]:
            asks = [line for line in item["metadata"].get("requires_dist", []) if "extra ==" not in line]
            self._set(item["metadata"]["name"], item["metadata"]["version"], asks)

    def _set(self, name: str, version: str, asks: Iterable[str]) -> None:
        name = canonicalize_name(name).replace("-", "_")
        for older in self._packages.glob(f"{name}-*.dist-info"):
            shutil.rmtree(older)
        folder = self._packages / f"{name}-{version}.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {line}" for line in asks]
        (folder / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / "INSTALLER").write_text("pip\n", encoding="utf-8")
        (folder / "RECORD").write_text("", encoding="utf-8")


def moved(folder: Path, recording: Recording, steps: Iterable[Iterable[str]]) -> dict[str, tuple[str, str | None]]:
    """The recorded packages that are of another version after the steps, one `pip install` each."""
    environment = Environment(folder, recording)
    before = environment.versions()
    for step in steps:
        environment.install(step)
    after = environment.versions()
    return {name: (version, after.get(name)) for name, version in before.items() if after.get(name) != version}
