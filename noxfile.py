# The project's checks.
#
# `nox` runs what a change must pass: the tests on every supported Python that is installed, with the coverage floors,
# then lint, types and docs. `nox -l` lists the rest. What follows `--` goes to pytest:
#
#     nox -s tests-3.11 -- tests/test_registry.py -k duplicate
#
# Rules: only pip and the standard backends are needed; a missing interpreter is skipped and named in the summary; every
# session can be run alone; nothing is downloaded but packages.

from __future__ import annotations

import os
import pathlib
import random
import re
import shutil
import subprocess

import nox

ROOT = pathlib.Path(__file__).parent
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
PYTHONS = ["3.11", "3.12", "3.13"]
# Measuring takes as long again as testing, so it is done once.
MEASURED = PYTHONS[0]
# Two processes for each core, as half of a test is waiting; the tests of one file stay together.
PARALLEL = ["-n", str(2 * (os.cpu_count() or 1)), "--dist", "loadfile"]

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["clean", "tests", "coverage", "lint", "types", "docs"]
nox.options.default_venv_backend = "virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"
nox.options.stop_on_first_error = False


def offer_pyenv_interpreters() -> None:
    """Let every interpreter that pyenv installed be found, not only the selected one."""
    if "PYENV_VERSION" in os.environ or not shutil.which("pyenv"):
        return
    listed = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True, check=False).stdout
    wanted = [version for version in listed.split() if version.rpartition(".")[0] in PYTHONS]
    selected = subprocess.run(["pyenv", "version-name"], capture_output=True, text=True, check=False).stdout.strip()
    if wanted and selected:
        names = [*selected.split(":"), *wanted]
        os.environ["PYENV_VERSION"] = ":".join(dict.fromkeys(names))


offer_pyenv_interpreters()


def group(name: str) -> list[str]:
    """The requirements of one dependency group."""
    return list(nox.project.dependency_groups(PYPROJECT, name))


@nox.session(python=False)
def clean(session: nox.Session) -> None:
    """Forget the coverage of earlier runs."""
    for old in ROOT.glob(".coverage*"):
        old.unlink()
    session.log("no coverage data is left")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests; on the lowest Python with branch coverage, of child processes and threads too."""
    session.install("-e", ".[jit,plot]", *group("tests"))
    # The tests start Python some hundred times: what is compiled is kept for that long, also where it is not to stand
    # beside sources. Not for longer, as they import temporary files, which would never go away.
    bytecode = session.cache_dir / "bytecode"
    shutil.rmtree(bytecode, ignore_errors=True)
    env = {"PYTHONDONTWRITEBYTECODE": None, "PYTHONPYCACHEPREFIX": str(bytecode)}
    if session.python == MEASURED:
        session.run("coverage", "run", "-m", "pytest", *PARALLEL, *session.posargs, env=env)
    else:
        session.run("pytest", *PARALLEL, *session.posargs, env=env | {"HYPOTHESIS_PROFILE": "quick"})


@nox.session
def coverage(session: nox.Session) -> None:
    """Combine what the tests measured and enforce the floors."""
    session.install(*(line for line in group("tests") if line.startswith("coverage")))
    found = sorted(str(path) for path in ROOT.glob(".coverage.*") if not path.name.endswith("-journal"))
    if not found:
        session.skip(f"nothing was measured: `nox -s tests-{MEASURED}` does that, and needs Python {MEASURED}")
    # --keep: this session can be repeated. A child killed while it was writing leaves a file that is skipped.
    session.run("coverage", "combine", "--keep", "--quiet", *found)
    session.run("coverage", "report", "--include=*/orc_trio/protocol/*", "--fail-under=100")
    session.run("coverage", "report", "--fail-under=95")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, formatting, the rules of async code, and the floors of the architecture."""
    session.install("-e", ".", *group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", "--diff", ".")
    sources = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "src").rglob("*.py"))]
    session.run("flake8-async", "--enable=ASYNC,ASYNC910,ASYNC912,ASYNC913", *sources)
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check with mypy --strict, and that every public name is completely typed."""
    # pyright is a Node.js program inside a wheel. Where there is no Node.js, a wheel brings that too.
    node = [] if shutil.which("node") else ["pyright[nodejs]"]
    # --verifytypes looks at an installed package, so this session installs a real one.
    session.install("--force-reinstall", "--no-deps", ".")
    session.install(".[jit,plot]", *group("types"), *node)
    session.run("mypy", "--strict")
    # Not asked for: whether a newer pyright exists (it would ask the network), and what is wrong in other packages.
    quiet = {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    session.run("pyright", "--ignoreexternal", "--verifytypes", "orc_trio", env=quiet)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, every warning an error, without the network; and the change notes."""
    session.install("-e", ".[jit,plot]", *group("docs"))
    session.run("python", "docs/inventories/make.py", "--check")
    session.run("sphinx-build", "-W", "--keep-going", "-q", "-E", "-b", "html", "docs", "docs/_build/html")
    session.run("towncrier", "build", "--draft", "--version", "next", silent=True)
    stray = [
        path.name
        for path in (ROOT / "docs" / "newsfragments").iterdir()
        if not re.fullmatch(r"(\d+|\+[\w-]+)\.(removal|feature|bugfix|doc|misc)(\.\d+)?\.rst|README\.rst", path.name)
    ]
    if stray:
        session.error(f"not a news fragment's name: {', '.join(stray)} (see docs/newsfragments/README.rst)")
    session.log("docs/_build/html/index.html")


@nox.session(python=PYTHONS[0])
def minimums(session: nox.Session) -> None:
    """All tests with the lowest version of every runtime dependency that pyproject.toml allows."""
    extras = PYPROJECT["project"]["optional-dependencies"].values()
    allowed = [*PYPROJECT["project"]["dependencies"], *(line for extra in extras for line in extra)]
    session.install("-e", ".[jit,plot]", *group("tests"), *(line.replace(">=", "==") for line in allowed))
    session.run("pytest", *PARALLEL, *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """All tests against the built wheel, without the extra `jit`: native code is skipped, everything else works."""
    built = pathlib.Path(session.create_tmp()) / "wheel"
    shutil.rmtree(built, ignore_errors=True)
    session.run("pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(built), ".")
    (path,) = built.glob("*.whl")
    session.install(*group("tests"))
    session.install("--force-reinstall", "--no-deps", str(path))
    session.install(str(path))
    # It says in one line what to install, and exits as it documents.
    session.run("orc-trio", "run", "examples/exit3.ll", success_codes=[125])
    session.run("pytest", *PARALLEL, *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Coverage-guided fuzzing of the decoder and the protocol core; what follows `--` goes to the fuzzer."""
    session.install("-e", ".", *group("fuzz"))
    arguments = session.posargs or ["-max_total_time=60"]
    for target in sorted((ROOT / "tests" / "fuzz").glob("fuzz_*.py")):
        corpus = pathlib.Path(session.create_tmp()) / target.stem
        session.run("python", "tests/fuzz/seeds.py", str(corpus))
        session.run("python", str(target), *arguments, f"-artifact_prefix={corpus}-", str(corpus))


@nox.session
def kill(session: nox.Session) -> None:
    """Kill either process of the examples at many random moments: a typed error in time, no orphan, no hang."""
    session.install("-e", ".[jit]", *group("tests"))
    rounds = {"ORC_TRIO_KILL_ROUNDS": "100"}
    session.run("pytest", "-m", "kill", "-o", "faulthandler_timeout=1200", *session.posargs, env=rounds)


@nox.session
def campaigns(session: nox.Session) -> None:
    """Random worlds and schedules, faults and cancellations everywhere: all of it (half an hour), with figures."""
    session.install("-e", ".", *group("tests"))
    first = os.environ.get("ORC_TRIO_FIRST_SEED") or str(random.randrange(10**9))
    session.log(f"ORC_TRIO_FIRST_SEED={first}")
    env = {"ORC_TRIO_SCHEDULES": "200000", "ORC_TRIO_THOROUGH": "1", "ORC_TRIO_FIRST_SEED": first}
    session.run(
        "pytest", *("-n", "auto"), "-m", "campaign", "-o", "faulthandler_timeout=7200", *session.posargs, env=env
    )


@nox.session
def scoreboard(session: nox.Session) -> None:
    """Measure how other libraries end, and ours (10 minutes); only those named after `--`, for example `rpyc`."""
    # One environment for each peer, made by the driver: it needs nothing but the standard library.
    cache = session.cache_dir / "scoreboard"
    session.run("python", "-m", "scoreboard", "--cache", str(cache), *session.posargs, env={"PYTHONPATH": "bench"})


@nox.session
def explore(session: nox.Session) -> None:
    """Two protocol cores and a channel, every interleaving: all worlds (minutes, 2 GB), or those named after `--`."""
    session.install("-e", ".")
    session.run("python", "-m", "orc_trio.testing.explore_cli", *session.posargs)


@nox.session
def museum(session: nox.Session) -> None:
    """Put each bug of the museum into a copy of the source: the tests must kill it.  All, or those named after `--`."""
    session.install("-e", ".[jit]", *group("tests"))
    session.run("python", "-m", "museum", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session
def bench(session: nox.Session) -> None:
    """Measure how fast the library is here (10 minutes); what follows `--` goes to `orc-trio bench`."""
    session.install(".[plot]")
    session.run("orc-trio", "bench", *session.posargs)


@nox.session
def bench_peers(session: nox.Session) -> None:
    """Compare with other libraries (20 minutes); only those named after `--`, for example `rpyc`."""
    session.install("-e", ".")
    cache = session.cache_dir / "scoreboard"
    session.run("python", "-m", "speed", "--cache", str(cache), *session.posargs, env={"PYTHONPATH": "bench"})


@nox.session
def profiles(session: nox.Session) -> None:
    """See where the time of a call goes, by room (2 minutes), for the documentation."""
    session.install("-e", ".")
    session.run("python", "-m", "profiles", *session.posargs, env={"PYTHONPATH": "bench"})


@nox.session
def gate(session: nox.Session) -> None:
    """Measure, and fail if a ratio is much worse than the one in the documentation."""
    session.install(".")
    session.run("orc-trio", "bench", "--compare", "bench/results.json", *session.posargs)
