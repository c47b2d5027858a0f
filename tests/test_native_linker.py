"""The linker: what a program finds when it is loaded, what runs at its end, and what is said when it does not fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import trio

from native_fakes import CASES, compiled
from orc_trio.native import LinkError, Target, compile_ir, compile_program
from orc_trio.native.linker import Linker, open_dylib, process_symbol

pytestmark = pytest.mark.native


@pytest.fixture(scope="module")
def linker() -> Linker:
    return Linker()


async def build(tmp_path: Path, source: str, name: str = "program") -> bytes:
    path = tmp_path / f"{name}.c"
    path.write_text(source)
    return await compile_program(path, Target.host())


async def test_main_gets_argv_and_environment(
    linker: Linker, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A main has its arguments, a null at their end, the environment, and its output is written out when it returns."""
    monkeypatch.setenv("ORC_TRIO_TEST", "fruit")
    source = """
        #include <stdio.h>
        #include <string.h>
        int main(int argc, char **argv, char **envp) {
            for (int i = 0; i < argc; i++) printf("%s|", argv[i]);
            printf("%d|", argv[argc] == NULL);
            for (; *envp; envp++) if (!strncmp(*envp, "ORC_TRIO_TEST=", 14)) printf("%s", *envp + 14);
            return -argc;
        }"""
    program = linker.load([await build(tmp_path, source)])
    assert program.run_main([b"prog", b"", b"\xff two words"]) == -3
    assert capfdbinary.readouterr().out == b"prog||\xff two words|1|fruit"
    program.unload()


async def test_the_end_of_a_program(linker: Linker, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What main registered runs after main, what constructors registered and destructors on unload; each in reverse."""
    source = """
        #include <stdio.h>
        #include <stdlib.h>
        static void a(void) { puts("a"); }
        static void b(void) { puts("b"); }
        static void c(void) { puts("c"); }
        __attribute__((constructor)) static void first(void) { puts("constructor"); atexit(c); }
        __attribute__((destructor)) static void last(void) { puts("destructor"); }
        int main(void) { atexit(a); atexit(b); puts("main"); return 0; }"""
    program = linker.load([await build(tmp_path, source)])
    program.run_main([b"x"])
    program.run_main([b"x"])
    assert capfd.readouterr().out.split() == ["constructor", "main", "b", "a", "main", "b", "a"]
    program.unload()
    program.unload()  # does nothing
    assert capfd.readouterr().out.split() == ["c", "destructor"]
    with pytest.raises(LinkError, match="has been unloaded"):
        program.lookup("main")


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
async def test_cplusplus(linker: Linker, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """C++ works: static objects are made and destroyed, exceptions are caught, its library is found by itself."""
    source = tmp_path / "program.cc"
    source.write_text("""
        #include <iostream>
        #include <stdexcept>
        struct Static { Static() { std::cout << "made\\n"; } ~Static() { std::cout << "destroyed\\n"; } } object;
        int main() {
            try { throw std::runtime_error("thrown"); }
            catch (const std::exception &error) { std::cout << error.what() << std::endl; }
            return 0;
        }""")
    await trio.run_process(["c++", "-c", "-fPIC", "-O1", "-o", tmp_path / "program.o", source])
    program = linker.load([(tmp_path / "program.o").read_bytes()])
    assert program.run_main([b"x"]) == 0
    program.unload()
    assert capfd.readouterr().out.split() == ["made", "thrown", "destroyed"]


async def test_several_objects_are_one_program(linker: Linker, tmp_path: Path) -> None:
    """Objects of one program see each other's symbols; two programs with the same names do not disturb each other."""
    one = await build(tmp_path, "int two(void); int main(void) { return two() + 1; }", "one")
    two = await build(tmp_path, "int two(void) { return 2; }", "two")
    other = await build(tmp_path, "int two(void) { return 20; }", "other")
    first, second = linker.load([one, two]), linker.load([one, other])
    assert (first.run_main([b"x"]), second.run_main([b"x"])) == (3, 21)
    first.unload()
    assert second.run_main([b"x"]) == 21
    second.unload()


async def test_imports_come_before_the_process(linker: Linker, tmp_path: Path) -> None:
    """A name handed in is used in place of the process's own."""
    labs = process_symbol("labs")
    assert labs is not None
    program = linker.load(
        [await build(tmp_path, "long answer(long); int main(void) { return answer(-42); }")], imports={"answer": labs}
    )
    assert program.run_main([b"x"]) == 42
    assert program.lookup("labs") == labs
    with pytest.raises(LinkError, match="no symbol 'nobody'"):
        program.lookup("nobody")
    program.unload()


async def test_missing_symbols_are_named(linker: Linker, tmp_path: Path) -> None:
    """Every symbol that is not there is named, before anything runs; very many are cut short."""
    source = "int gone(void), lost(void); int main(void) { return gone() + lost(); }"
    with pytest.raises(LinkError, match=r"not defined anywhere: gone, lost$"):
        linker.load([await build(tmp_path, source)])
    many = "".join(f"int f{i}(void);" for i in range(50))
    calls = "+".join(f"f{i}()" for i in range(50))
    with pytest.raises(LinkError, match=r"and 30 more$"):
        linker.load([await build(tmp_path, f"{many} int main(void) {{ return {calls}; }}")])


async def test_what_does_not_fit(linker: Linker, tmp_path: Path) -> None:
    """No object, a second definition, and an object that must be near what it uses are errors that say so."""
    with pytest.raises(LinkError, match="no object"):
        linker.load([])
    plain = await build(tmp_path, "int main(void) { return 0; }")
    with pytest.raises(LinkError, match="more than one object: main"):
        linker.load([plain, plain])
    foreign = bytearray(plain)
    foreign[18:20] = (183 if foreign[18] == 62 else 62).to_bytes(2, "little")
    with pytest.raises(LinkError, match="and this executor is"):
        linker.load([bytes(foreign)])
    fixed = await compile_program(
        _write(tmp_path / "fixed.c", "int state = 7; int *main(void) { return &state; }"),
        Target.host(),
        arguments=["-fno-pic", "-mcmodel=small"],
    )
    try:
        linker.load([fixed]).unload()
    except LinkError as exc:
        assert "compile with -fPIC" in str(exc)


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


async def test_dylibs(linker: Linker) -> None:
    """A library that was opened offers its symbols; one that is not there is an error."""
    source = """
        declare ptr @zlibVersion()
        define i32 @main() {
          %text = call ptr @zlibVersion()
          %first = load i8, ptr %text
          %result = zext i8 %first to i32
          ret i32 %result
        }"""
    open_dylib("libz.so.1")
    program = linker.load([await compile_ir(source, Target.host())])
    assert program.run_main([b"x"]) == ord("1")
    program.unload()
    with pytest.raises(LinkError, match=r"cannot load the library 'libnowhere\.so'"):
        open_dylib("libnowhere.so")


async def test_loading_and_unloading_forever(linker: Linker) -> None:
    """Programs can come and go without end."""
    data = await compiled(CASES)
    for _ in range(50):
        program = linker.load([data], imports={"orc_trio_get_session": 16, "orc_trio_tag_upper": 32})
        assert program.lookup("add_one")
        program.unload()
