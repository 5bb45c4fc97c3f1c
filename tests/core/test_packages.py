"""What is said when a package cannot be used; each in the way it is met with in users' environments."""

import builtins
import importlib.metadata
import sys

import pytest
import torch

from morph_pack.morph_core import packages
from morph_pack.morph_core.errors import MissingPackage, MorphError
from morph_pack.morph_core.lora.fit import fit_lora
from morph_pack.morph_core.morphing.perceptual import lpips_distances
from morph_pack.morph_core.packages import BOUNDS, needed
from morph_pack.morph_core.toy.model import new_autoencoder, new_unet

USERS = [  # every function of the core that imports a package, by the package
    ("diffusers", new_unet),
    ("diffusers", new_autoencoder),
    ("lpips", lambda: lpips_distances(torch.zeros(2, 3, 32, 32))),
    ("torchvision", lambda: lpips_distances(torch.zeros(2, 3, 32, 32))),
]
by_name = pytest.mark.parametrize(("name", "use"), USERS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(USERS)])


@pytest.fixture
def versions(monkeypatch):
    """Versions that are found from now on instead of the installed ones; None: none."""
    found = {}
    real = importlib.metadata.version

    def version(name):
        if found.get(name, "") is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found.get(name) or real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    return found


@pytest.fixture
def import_fails(monkeypatch):
    """Makes the import of a package raise."""
    real = builtins.__import__

    def fail(package, error):
        def imported(name, *rest, **options):
            if name.partition(".")[0] == package:
                raise error
            return real(name, *rest, **options)

        monkeypatch.setattr(builtins, "__import__", imported)

    return fail


def command(name):
    return f'{sys.executable} -m pip install "{name}{BOUNDS[name]}" and restart ComfyUI'


@by_name
def test_a_missing_package_is_named_with_the_command(name, use, monkeypatch, versions):
    versions[name] = None
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackage, match=f"^{name} is not installed") as raised:
        use()
    assert isinstance(raised.value, MorphError) and isinstance(raised.value, ImportError)
    assert str(raised.value).endswith(command(name) if name != "torchvision" else "as ComfyUI's README says")


@by_name
def test_a_broken_package_is_named_with_what_went_wrong(name, use, versions, import_fails):
    """As diffusers reports a huggingface_hub that does not fit: a RuntimeError that wraps the cause."""
    versions[name] = "1.2.3"
    error = RuntimeError("Failed to import x because of the following error (look up to see its traceback):\n…")
    error.__cause__ = ImportError("cannot import name 'cached_download' from 'huggingface_hub'")
    import_fails(name, error)
    with pytest.raises(MissingPackage) as raised:
        use()
    expected = f"{name} 1.2.3 cannot be imported (cannot import name 'cached_download' from 'huggingface_hub'). "
    assert str(raised.value).startswith(expected + ("It comes with" if name == "torchvision" else "Install it with: "))


def test_a_package_that_lacks_another_one_is_broken_not_missing(versions, import_fails):
    versions["diffusers"] = "0.31.0"
    import_fails("diffusers", ModuleNotFoundError("No module named 'regex'", name="regex"))
    with pytest.raises(MissingPackage, match=r"^diffusers 0\.31\.0 cannot be imported \(No module named 'regex'\)\. "):
        new_unet()


@pytest.mark.parametrize("error", [OSError("x" * 5000), ImportError("line\n" * 900), AssertionError()])
def test_what_went_wrong_is_told_in_one_short_line(error):
    text = packages.reason(error)
    assert 0 < len(text) <= packages.LONGEST_REASON and "\n" not in text


@pytest.mark.parametrize("version", ["0.29.2", "0.9.0", "0.3"])
def test_a_too_old_package_is_not_even_imported(version, versions, import_fails):
    versions["diffusers"] = version
    import_fails("diffusers", AssertionError("imported"))
    with pytest.raises(MissingPackage) as raised:
        new_unet()
    assert str(raised.value).startswith(f"diffusers {version} is too old, 0.30 or newer is needed. ")
    assert str(raised.value).endswith(command("diffusers"))


@pytest.mark.parametrize("version", ["0.30.0", "0.32.2", "0.36.0.dev0", "0.42.1", "1.0", "0.30.0+local.1"])
def test_a_newer_package_that_is_already_there_is_used(version, versions):
    """The upper bound is for installing: what another pack brought is left alone."""
    versions["diffusers"] = version
    with needed("diffusers"):
        pass


def test_a_pytorch_too_old_to_fit_a_lora_is_never_replaced_by_a_command(versions):
    versions["torch"] = "2.2.1+cu121"
    with pytest.raises(MissingPackage, match=r"^torch 2\.2\.1\+cu121 is too old, 2\.3 or newer") as raised:
        fit_lora(None, torch.zeros(1, 4, 8, 8), None)
    assert "pip" not in str(raised.value)


@pytest.mark.parametrize(
    ("executable", "start"),
    [
        (r"C:\ComfyUI_windows_portable\python_embeded\python.exe", r"C:\ComfyUI_windows_portable\python_embeded"),
        (r"C:\My Programs\python_embeded\python.exe", r'"C:\My Programs\python_embeded\python.exe" -m pip'),
        ("", "python -m pip"),
    ],
)
def test_the_command_is_for_comfyuis_own_python(executable, start, monkeypatch):
    monkeypatch.setattr(sys, "executable", executable)
    assert packages.advice("lpips").startswith(f"Install it with: {start}")


def test_cancelling_passes():
    with pytest.raises(KeyboardInterrupt), needed("lpips"):
        raise KeyboardInterrupt
