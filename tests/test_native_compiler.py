"""The compiler: programs become objects for the executor's machine, or errors that say where and why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from native_fakes import EXAMPLES
from orc_trio.bootstrap import BootstrapInfo
from orc_trio.native import CompileError, Target, compile_ir, compile_program, elf
from orc_trio.native.compiler import find_c_compiler

pytestmark = pytest.mark.native

HOST = f"{elf.host_machine()}-unknown-linux-gnu"


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("optimize", [0, 1, 2, 3])
@pytest.mark.parametrize("name", ["mandelbrot.ll", "crash.ll", "exit3.ll", "nbody.c", "callback.c"])
async def test_examples_compile(name: str, optimize: int) -> None:
    """Every example becomes an object, at every optimisation level."""
    obj = elf.read_object(await compile_program(EXAMPLES / name, Target.host(), optimize=optimize))
    assert "main" in obj.defined


async def test_bitcode_and_objects(tmp_path: Path) -> None:
    """Bitcode is compiled, an object is taken as it is."""
    import llvmlite.binding

    module = llvmlite.binding.parse_assembly("define i32 @main() { ret i32 5 }")
    data = await compile_program(write(tmp_path / "x.bc", module.as_bitcode()), Target(HOST))
    assert elf.read_object(data).defined == {"main"}
    assert await compile_program(write(tmp_path / "x.o", data), Target(HOST)) == data


@pytest.mark.parametrize(
    ("name", "source", "says"),
    [
        ("a.ll", "define i32 @main() { ret i64 3 }", r"a\.ll:1:26: error: value doesn't match"),
        ("a.ll", "\n\xff".encode("latin-1"), r"a\.ll:2: this is not LLVM IR"),
        ("a.ll", "define i32 @main() {\n%x = call i32 @f()\nret i32 %x\n}", r"a\.ll:2:15: .*undefined value '@f'"),
        ("a.ll", 'target triple = "armv7-linux"\ndefine void @f() { ret void }', r"a\.ll: this IR is for armv7-linux"),
        ("a.bc", b"BC\xc0\xde" + bytes(100), r"a\.bc: "),
        ("a.ll", 'define void @main() {\ncall void asm "bogus", ""()\nret void\n}', r"a\.ll: LLVM failed.*\n?.*bogus"),
        ("a.c", "int main(void) { return x; }", r"a\.c:1:25: error: "),
        ("a.o", "text", "not an ELF object"),
        ("a.o", b"\x7fELF", "damaged"),
        ("a.rs", "fn main() {}", r"cannot compile '\.rs'; known: \.ll, \.bc, \.c, \.o"),
        ("a", "", "cannot compile a file without a suffix"),
    ],
)
async def test_what_is_wrong_is_said(tmp_path: Path, name: str, source: str | bytes, says: str) -> None:
    """A wrong program is a CompileError with its name, line and column."""
    with pytest.raises(CompileError, match=says):
        await compile_program(write(tmp_path / name, source), Target(HOST))


async def test_no_such_file(tmp_path: Path) -> None:
    """A missing program is the error the system gives."""
    with pytest.raises(FileNotFoundError):
        await compile_program(tmp_path / "nowhere.ll", Target(HOST))


async def test_bad_level(tmp_path: Path) -> None:
    """The optimisation level is 0 to 3."""
    with pytest.raises(ValueError, match="0 to 3"):
        await compile_program(write(tmp_path / "a.ll", ""), Target(HOST), optimize=4)


@pytest.mark.parametrize("triple", ["nonsense-unknown-none", "", "x" * 300])
async def test_unknown_machine(triple: str) -> None:
    """A triple LLVM does not know is an error."""
    with pytest.raises(CompileError, match="cannot compile for"):
        await compile_ir("define i32 @main() { ret i32 0 }", Target(triple), name="a.ll")


async def test_features_that_abort_llvm_cost_a_child_only() -> None:
    """G25: an executor's words cannot crash its controller: LLVM aborts in a child process."""
    if elf.host_machine() != "x86_64":
        pytest.skip("the words are those of x86-64")
    with pytest.raises(CompileError, match=r"LLVM failed while compiling \(SIG|LLVM failed while compiling \(exit"):
        await compile_ir("define i32 @main() { ret i32 0 }", Target(HOST, "i386", "-64bit"), name="a.ll")


async def test_the_compiler_can_be_cancelled() -> None:
    """A cancelled compilation is over at once; the child is gone when it is."""
    with trio.move_on_after(0.02) as scope:
        await compile_ir("define i32 @main() { ret i32 0 }", Target(HOST))
        await trio.sleep_forever()
    assert scope.cancelled_caught


def test_target_of_an_executor() -> None:
    """The target is what the executor's bootstrap info says: triple, cpu, features."""
    info = BootstrapInfo(triple=HOST, page_size=4096, values={"cpu": b"znver3", "features": b"+avx2,-sse4a"})
    assert Target.of(info) == Target(HOST, "znver3", "+avx2,-sse4a")
    assert Target.of(BootstrapInfo(triple=HOST, page_size=4096)) == Target(HOST)
    assert Target("amd64-linux").machine == "x86_64"
    assert Target("arm64-linux").machine == "aarch64"


@pytest.mark.parametrize("values", [{"cpu": b"a b"}, {"features": b"\xff"}, {"cpu": b"x" * 100_000}, {"cpu": b"a\0b"}])
def test_untrusted_words(values: dict[str, bytes]) -> None:
    """G25: words that cannot be LLVM's never reach it."""
    with pytest.raises(CompileError, match="not plain words"):
        Target.of(BootstrapInfo(triple=HOST, page_size=4096, values=values))


async def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a C compiler, C is refused with the way out; $CC decides if it is set."""
    source = write(tmp_path / "a.c", "int main(void) { return 0; }")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(CompileError, match="no C compiler found.*give LLVM IR"):
        await compile_program(source, Target(HOST))
    monkeypatch.setenv("CC", "nowhere")
    assert find_c_compiler() is None


async def test_other_machines(tmp_path: Path) -> None:
    """A compiler or object for one machine is not used for another."""
    other = Target("riscv64-unknown-linux-gnu")
    source = write(tmp_path / "a.c", "int main(void) { return 0; }")
    if "clang" not in (find_c_compiler() or ""):
        with pytest.raises(CompileError, match="and the executor is riscv64"):
            await compile_program(source, other)
    data = await compile_program(source, Target(HOST))
    with pytest.raises(CompileError, match="and the executor is riscv64"):
        await compile_program(write(tmp_path / "a.o", data), other)


def test_without_llvmlite(tmp_path: Path) -> None:
    """Without the extra everything imports, and what needs it says in one line what to install."""
    script = """
import sys
sys.modules["llvmlite"] = None
sys.modules["llvmlite.binding"] = None
import trio
import orc_trio.native as native
assert not native.available()
for attempt in (native.Target.host, lambda: trio.run(native.compile_ir, "", native.Target("x86_64-linux")),
                lambda: native.install_native(None, None)):
    try:
        attempt()
    except native.JitUnavailableError as exc:
        assert isinstance(exc, ImportError)
        print(exc)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "native code needs llvmlite: install it with  pip install 'orc_trio[jit]'\n" * 3
