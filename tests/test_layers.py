"""The layers: imports go one way, and importing fastconv costs next to nothing."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

import fastconv

PACKAGE = pathlib.Path(fastconv.__file__).parent
MODULES = {
    ".".join(("fastconv", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}

# What each layer may import of the package; the registry reaches the devices by name, when it is asked.
CORE_BELOW_ALGORITHMS = {
    "fastconv.core.algorithm",
    "fastconv.core.arrays",
    "fastconv.core.boundary",
    "fastconv.core.devices",
    "fastconv.core.errors",
    "fastconv.core.jit",
    "fastconv.core.kept",
    "fastconv.core.machine",
    "fastconv.core.parameters",
    "fastconv.core.pool_problem",
    "fastconv.core.problem",
    "fastconv.core.threads",
    "fastconv.core.winograd_matrices",
}


# What of a device stands above the algorithms: calls, from arrays to array.
CALLS = {"fastconv.cuda.evaluate", "fastconv.cuda.patch_evaluate", "fastconv.cuda.pool_evaluate"}


def imports(module):
    """Absolute names of everything that a module imports, and whether at its top."""
    path = MODULES[module]
    parts = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])
            base = base if node.level else node.module
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield (name if name in MODULES else base), id(node) in top


def of_package(module):
    return {name for name, _ in imports(module) if name in MODULES}


def device_of(module):
    return module.split(".")[1] if module.split(".")[1:2] in (["cpu"], ["cuda"]) else None


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("fastconv.core.")])
def test_core_imports_nothing_but_core(module):
    assert all(name.startswith("fastconv.core") for name in of_package(module))


@pytest.mark.parametrize("module", sorted(CORE_BELOW_ALGORITHMS))
def test_what_algorithms_stand_on_does_not_know_the_selector(module):
    assert of_package(module) <= CORE_BELOW_ALGORITHMS


@pytest.mark.parametrize(
    ("module", "below"), [("parameters", {"errors"}), ("problem", {"boundary", "errors", "parameters"})]
)
def test_the_problem_imports_only_the_standard_library_and_numpy(module, below):
    others = {name.split(".")[0] for name, _ in imports(f"fastconv.core.{module}")} - {"fastconv"}
    assert others <= sys.stdlib_module_names | {"numpy"}
    assert of_package(f"fastconv.core.{module}") == {f"fastconv.core.{name}" for name in below}


@pytest.mark.parametrize("module", [name for name in MODULES if device_of(name) and name not in CALLS])
def test_a_device_imports_itself_and_the_core_below(module):
    allowed = CORE_BELOW_ALGORITHMS | {name for name in MODULES if device_of(name) == device_of(module)}
    assert of_package(module) <= allowed


@pytest.mark.parametrize("module", [name for name in MODULES if device_of(name) and name not in CALLS])
def test_no_algorithm_imports_another(module):
    """What two share stands in a module with an underscore."""
    assert all(name.split(".")[-1].startswith("_") for name in of_package(module) if device_of(name))


@pytest.mark.parametrize("module", [name for name in MODULES if not device_of(name)])
def test_nothing_else_imports_a_device(module):
    assert not any(device_of(name) for name in of_package(module))


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_cuda_at_the_top(module):
    assert not any("cuda" in name and at_top for name, at_top in imports(module) if device_of(module) != "cuda")


def test_importing_fastconv_imports_no_compiler():
    code = "import sys, fastconv; print([name for name in ('numba', 'scipy', 'llvmlite') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_first_call_does_not_import_cuda():
    code = (
        "import sys, numpy, fastconv\n"
        "fastconv.conv1d(numpy.ones((1, 1, 4)), numpy.ones((1, 1, 2)))\n"
        "print('numba' in sys.modules, 'numba.cuda' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "True False\n"
    )
