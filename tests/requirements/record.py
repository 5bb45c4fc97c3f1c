"""Prints the packages of the Python that runs this, as the recordings beside it list them.

    path/to/comfyui/python tests/requirements/record.py > tests/requirements/<name>.txt

What those that break first ask for is printed below them; torch's wheels for one platform are left out.
"""

import importlib.metadata
import sys
from collections.abc import Iterator

ASKS_RECORDED = ("transformers", "huggingface-hub", "tokenizers")
PLATFORM_ONLY = ("nvidia-", "cuda-", "triton", "pip", "setuptools")


def normal(name: str) -> str:
    return name.lower().replace("_", "-")


def recorded() -> Iterator[str]:
    """The recording's lines."""
    yield f"python {sys.version_info[0]}.{sys.version_info[1]} {sys.platform}"
    found = {normal(package.metadata["Name"]): package for package in importlib.metadata.distributions()}
    for name, package in sorted(found.items()):
        if name.startswith(PLATFORM_ONLY):
            continue
        yield f"{name}=={package.version}"
        if name in ASKS_RECORDED:
            yield from (f"    {line}" for line in package.requires or [] if "extra ==" not in line)


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in recorded())
