"""Installing requirements.txt changes no package that a ComfyUI brought: what pip itself says, asked for each line.

    python scripts/dev.py test -m package_index

The environments are recorded (see `record.py`); the package index is today's, so that this fails on the day that a new
release of something begins to move what is there.
"""

from pathlib import Path

import pytest

from morph_tests.requirements.installing import moved, read_recording, requirement_lines

FOLDER = Path(__file__).parent
REQUIREMENTS = FOLDER.parents[1] / "requirements.txt"
CASES = [(file.stem, python) for file in sorted(FOLDER.glob("*.txt")) for python in read_recording(file).pythons]

pytestmark = pytest.mark.package_index
on_each = pytest.mark.parametrize(("name", "python"), CASES, ids=["-".join([name, *python]) for name, python in CASES])


def recording(name):
    return read_recording(FOLDER / f"{name}.txt")


@on_each
def test_line_by_line_as_manager_installs(tmp_path, name, python):
    lines = requirement_lines(REQUIREMENTS, python)
    assert moved(tmp_path, recording(name), [[line] for line in lines]) == {}


@on_each
def test_all_lines_at_once(tmp_path, name, python):
    lines = requirement_lines(REQUIREMENTS, python)
    assert moved(tmp_path, recording(name), [lines]) == {}


def test_diffusers_would_break_a_portable_build(tmp_path):
    """Why the nodes do without: ComfyUI does not start afterwards, for its transformers wants a hub below 1.0."""
    changes = moved(tmp_path, recording("portable_october_2025"), [["diffusers>=0.30"]])
    before, after = changes["huggingface-hub"]
    assert before == "0.35.3" and int(after.split(".")[0]) >= 1


def test_a_later_line_is_asked_of_what_an_earlier_one_left(tmp_path):
    """peft alone asks nothing of a hub of 2.x, but pip then repairs what transformers wants: back below 1.0."""
    steps = [["diffusers>=0.36"], ["peft>=0.12"]]
    changes = moved(tmp_path, recording("portable_october_2025"), steps)
    assert changes["huggingface-hub"][1].startswith("0.")
