"""Law 9: the service imports, and starts, without torch and onnx."""

import subprocess
import sys

import pytest

WITHOUT = "import sys; sys.modules['torch'] = sys.modules['onnx'] = None; "


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WITHOUT + code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("module", ["app", "server", "cli", "checking", "workers.supervisor", "workers.child"])
def test_the_service_imports_without_torch_and_onnx(module: str) -> None:
    done = run(f"import handful_service.{module}; print(*sorted(sys.modules))")
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert f"handful_service.{module}" in loaded
    assert not loaded & {"handful_models", "handful_export", "pickle5", "onnxscript"}


def test_an_import_of_torch_would_be_caught() -> None:
    assert run("import handful_service.app; import torch").returncode == 1


def test_a_bundle_is_loaded_and_answered_without_torch_and_onnx() -> None:
    code = (
        "import asyncio, pathlib; from handful_service.checking import check; "
        "print(asyncio.run(check(pathlib.Path('bundles/glyphs/1')))['ok'])"
    )
    done = run(code)
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr
