"""The controller's compiler: a program's source becomes an object for the executor's machine.

What it takes, by the file's suffix: LLVM IR as text (`.ll`) or bitcode (`.bc`), which llvmlite compiles for the
executor's triple, CPU and features; C (`.c`), if a compiler is found here; an object (`.o`), taken as it is.

Theory. LLVM aborts the process it is in when it meets what it cannot do: bad inline assembly, features that
contradict each other, a bug of its own. And the triple, CPU and features come from the executor. So IR is compiled in
a child process, always: a fault in the code costs the child, and the controller gets a `CompileError`. The child can be
cancelled, and the event loop stays free.

The object is position-independent, since the executor may place it far from the libraries it uses.

Refuses: IR for another architecture than the executor's, IR that does not verify, C for another architecture than
this machine's (clang is given the executor's triple, others cannot be).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import attrs
import trio

from orc_trio.native import elf, llvm
from orc_trio.native.errors import CompileError, JitUnavailableError, LinkError

INCLUDE_DIRECTORY: Final = Path(__file__).with_name("include")
"""Where `orc_trio.h` is; given to the C compiler."""

SUFFIXES: Final = (".ll", ".bc", ".c", ".o")
"""The kinds of program `compile_program` takes."""

_COMPILERS: Final = ("cc", "clang", "gcc")
_MAX_VALUE: Final = 64 * 1024


class _Bootstrap(Protocol):
    @property
    def triple(self) -> str: ...
    @property
    def values(self) -> Mapping[str, bytes]: ...


@attrs.frozen
class Target:
    """The machine to compile for."""

    triple: str
    cpu: str = ""
    """LLVM's name of the CPU; empty: any of this architecture."""
    features: str = ""
    """LLVM's feature string, `+avx2,-sse4a,…`; empty: those of the CPU."""

    @property
    def machine(self) -> str:
        """The architecture, for example `x86_64`."""
        arch = self.triple.partition("-")[0].lower()
        return {"amd64": "x86_64", "arm64": "aarch64"}.get(arch, arch)

    @classmethod
    def of(cls, bootstrap: _Bootstrap) -> Target:
        """Return the target an executor described in its bootstrap info.

        Raises:
            CompileError: the description cannot be one (the executor's doing).
        """
        values = [bootstrap.values.get(key, b"") for key in ("cpu", "features")]
        for text in (bootstrap.triple.encode("utf-8", "replace"), *values):
            if len(text) > _MAX_VALUE or not all(0x21 <= byte <= 0x7E for byte in text):
                raise CompileError("the executor's triple, cpu or features are not plain words")
        return cls(bootstrap.triple, values[0].decode("ascii"), values[1].decode("ascii"))

    @classmethod
    def host(cls) -> Target:
        """Return this machine as a target.

        Raises:
            JitUnavailableError: llvmlite is not installed.
        """
        binding = llvm.binding()
        features = binding.get_host_cpu_features().flatten()
        return cls(binding.get_process_triple(), binding.get_host_cpu_name(), features)


async def compile_program(
    path: str | os.PathLike[str], target: Target, *, optimize: int = 2, arguments: Sequence[str] = ()
) -> bytes:
    """Compile a program for an executor.

    Args:
        path: the program; its suffix is one of `SUFFIXES`.
        target: the executor's machine.
        optimize: 0 (as written) to 3 (all that LLVM knows).
        arguments: given to the C compiler, before the file; ignored for other kinds.

    Returns:
        A relocatable object.

    Raises:
        CompileError: the program is wrong; the message has the file and line. Or there is no compiler for it.
        JitUnavailableError: IR, and llvmlite is not installed.
        OSError: the file cannot be read.

    Checkpoints:
        Always.

    Cancellation:
        Kills the compiler; nothing is left behind.
    """
    if not 0 <= optimize <= 3:
        raise ValueError(f"optimize must be 0 to 3, not {optimize}")
    path = Path(path)
    data = await trio.Path(path).read_bytes()
    match path.suffix:
        case ".ll" | ".bc":
            return await compile_ir(data, target, optimize=optimize, name=str(path))
        case ".c":
            return await _compile_c(path, target, optimize=optimize, arguments=arguments)
        case ".o":
            return _checked_object(data, target, str(path))
        case suffix:
            kind = repr(suffix) if suffix else "a file without a suffix"
            raise CompileError(f"{path}: cannot compile {kind}; known: {', '.join(SUFFIXES)}")


async def compile_ir(source: str | bytes, target: Target, *, optimize: int = 2, name: str = "<string>") -> bytes:
    """Compile LLVM IR, as text or bitcode, in a child process.

    Args:
        source: the IR; bytes that start as bitcode does are bitcode, others UTF-8 text.
        target: the machine to compile for.
        optimize: 0 to 3.
        name: names the source in messages.

    Returns:
        A relocatable object.

    Raises:
        CompileError: the IR is wrong or does not fit the target; the message has name and line.
        JitUnavailableError: llvmlite is not installed.

    Checkpoints:
        Always.

    Cancellation:
        Kills the compiler.
    """
    if not llvm.available():
        raise JitUnavailableError(llvm.INSTALL_HINT)
    data = source.encode() if isinstance(source, str) else bytes(source)
    words = [target.triple, target.cpu, target.features, str(optimize)]
    command = [sys.executable, "-P", "-m", "orc_trio.native.ir", *words]
    paths = [str(Path(__file__).parents[2]), *filter(None, sys.path)]
    result = await trio.run_process(
        command,
        stdin=data,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    if result.returncode == 0:
        return result.stdout
    text = result.stderr.decode("utf-8", "replace").strip()
    if result.returncode == llvm.SOURCE_IS_WRONG:
        raise CompileError(text.replace("<string>", name) if "<string>" in text else f"{name}: {text}")
    raise CompileError(f"{name}: LLVM failed while compiling ({_ended(result)}): {text[-2000:] or 'it said nothing'}")


async def _compile_c(path: Path, target: Target, *, optimize: int, arguments: Sequence[str]) -> bytes:
    compiler = find_c_compiler()
    if compiler is None:
        tried = ", ".join(_COMPILERS)
        raise CompileError(f"{path}: no C compiler found (tried $CC, {tried}); give LLVM IR or an object instead")
    command = [compiler, "-c", f"-O{optimize}", "-fPIC", f"-I{INCLUDE_DIRECTORY}"]
    if "clang" in Path(compiler).name:
        command.append(f"--target={target.triple}")
    elif target.machine != elf.host_machine():
        here = elf.host_machine()
        raise CompileError(f"{path}: {compiler} compiles for {here} only, and the executor is {target.machine}")
    with _scratch_directory() as scratch:
        output = scratch / "program.o"
        source = f"./{path}" if str(path).startswith("-") else str(path)
        result = await trio.run_process(
            [*command, *arguments, "-o", str(output), source],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        if result.returncode != 0:
            text = result.stderr.decode("utf-8", "replace").strip()
            raise CompileError(text or f"{path}: {compiler} failed ({_ended(result)})")
        return _checked_object(output.read_bytes(), target, str(path))


async def link_library(code: bytes, output: Path, *, name: str) -> None:
    """Link an object into a shared library that this machine's loader can load.

    Args:
        code: the object.
        output: where to write the library.
        name: names the object in messages.

    Raises:
        CompileError: it cannot be linked, or there is no C compiler to do it.

    Checkpoints:
        Always.

    Cancellation:
        Kills the linker.
    """
    compiler = find_c_compiler()
    if compiler is None:
        raise CompileError(f"{name}: no C compiler found to link it (tried $CC, {', '.join(_COMPILERS)})")
    with _scratch_directory() as scratch:
        source = scratch / "program.o"
        source.write_bytes(code)
        # now: what is missing is said when it is loaded, not by whoever needs it first.
        result = await trio.run_process(
            [compiler, "-shared", "-Wl,-z,now", "-o", str(output), str(source)],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    if result.returncode != 0:
        text = result.stderr.decode("utf-8", "replace").strip()
        raise CompileError(f"{name}: {text or f'{compiler} failed ({_ended(result)})'}")


def find_c_compiler() -> str | None:
    """Return the C compiler used here: `$CC` if it is set, else the first that is found."""
    chosen = os.environ.get("CC")
    return shutil.which(chosen) if chosen else next(filter(None, map(shutil.which, _COMPILERS)), None)


def _checked_object(data: bytes, target: Target, name: str) -> bytes:
    if not elf.is_elf(data):
        raise CompileError(f"{name}: this is not an ELF object file")
    try:
        machine = elf.read_object(data).machine
    except LinkError as exc:
        raise CompileError(f"{name}: {exc}") from exc
    if machine != target.machine:
        raise CompileError(f"{name}: this object is for {machine}, and the executor is {target.machine}")
    return data


@contextmanager
def _scratch_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="orc-trio-") as name:
        yield Path(name)


def _ended(result: subprocess.CompletedProcess[bytes]) -> str:
    if result.returncode >= 0:
        return f"exit status {result.returncode}"
    try:
        return signal.Signals(-result.returncode).name
    except ValueError:
        return f"signal {-result.returncode}"
