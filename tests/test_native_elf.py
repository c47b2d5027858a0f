"""Reading object files: what they define and need, and that no damage to one gets past."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest
import trio

from orc_trio.native import LinkError, Target, compile_ir, compile_program, elf
from orc_trio.native.linker import Linker

pytestmark = pytest.mark.native

SOURCE = """
@state = global i32 0
@shared = weak global i32 1
@hidden = hidden global i32 2
@a = private constant [2 x i8] c"a\\00"
@b = private constant [2 x i8] c"b\\00"
@c = private constant [2 x i8] c"c\\00"
@llvm.global_ctors = appending global [3 x { i32, ptr, ptr }] [
  { i32, ptr, ptr } { i32 65535, ptr @say_b, ptr null },
  { i32, ptr, ptr } { i32 65535, ptr @say_c, ptr null },
  { i32, ptr, ptr } { i32 101, ptr @say_a, ptr null }]
@llvm.global_dtors = appending global [2 x { i32, ptr, ptr }] [
  { i32, ptr, ptr } { i32 65535, ptr @say_c, ptr null },
  { i32, ptr, ptr } { i32 65535, ptr @say_b, ptr null }]
declare i32 @puts(ptr)
declare extern_weak void @perhaps()
define internal void @say_a() {
  call i32 @puts(ptr @a)
  ret void
}
define internal void @say_b() {
  call i32 @puts(ptr @b)
  ret void
}
define internal void @say_c() {
  call i32 @puts(ptr @c)
  ret void
}
define i32 @main() {
  %h = load i32, ptr @hidden
  %never = icmp eq i32 %h, 1
  br i1 %never, label %call, label %done
call:
  call void @perhaps()
  br label %done
done:
  ret i32 %h
}
"""


@pytest.fixture(scope="module")
def data() -> bytes:
    async def make() -> bytes:
        return await compile_ir(SOURCE, Target.host())

    return trio.run(make)


def test_what_an_object_says(data: bytes) -> None:
    """Definitions, needs and constructors are found; weak and hidden names are told apart."""
    obj = elf.read_object(data, unique="7")
    assert obj.machine == elf.host_machine()
    assert obj.defined == {"state", "shared", "main"}
    assert obj.strong == {"state", "hidden", "main"}
    assert obj.undefined - {"_GLOBAL_OFFSET_TABLE_"} == {"puts"}
    assert sorted((array.init, array.priority, array.count) for array in obj.arrays) == [
        (False, 65536, 2),
        (True, 101, 1),
        (True, 65536, 2),
    ]


@pytest.mark.parametrize("style", ["compiled by LLVM", "compiled by cc"])
def test_constructors_and_destructors_run_in_order(
    data: bytes, style: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Constructors run on load by priority, then as they were declared; destructors the other way round."""
    if style == "compiled by cc":
        source = tmp_path / "x.c"
        source.write_text(
            "#include <stdio.h>\n"
            '__attribute__((constructor)) static void b(void) { puts("b"); }\n'
            '__attribute__((constructor)) static void c(void) { puts("c"); }\n'
            '__attribute__((constructor(101))) static void a(void) { puts("a"); }\n'
            '__attribute__((destructor)) static void d2(void) { puts("c"); }\n'
            '__attribute__((destructor)) static void d1(void) { puts("b"); }\n'
            "int main(void) { return 2; }\n"
        )
        data = trio.run(compile_program, source, Target.host())
    program = Linker().load([data])
    assert program.run_main([b"x"]) == 2
    program.unload()
    assert capfd.readouterr().out.split() == ["a", "b", "c", "b", "c"]


def test_rewriting_leaves_the_rest_alone(data: bytes) -> None:
    """A rewritten object is the old one, with renamed needs and more symbols."""
    obj = elf.read_object(data)
    again = elf.read_object(obj.rewritten({"puts": "my_puts", "main": "not_undefined"}))
    assert again.undefined == (obj.undefined - {"puts"}) | {"my_puts"}
    assert again.defined == obj.defined | {array.symbol for array in obj.arrays}


def test_nothing_to_rewrite(data: bytes) -> None:
    """An object without constructors or names to change stays the same."""

    async def make() -> bytes:
        return await compile_ir("define i32 @main() { ret i32 0 }", Target.host())

    plain = trio.run(make)
    assert elf.read_object(plain).rewritten({"puts": "x"}) is plain


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"", "not an ELF"),
        (b"MZ", "not an ELF"),
        (b"\x7fELF", "damaged"),
        (b"\x7fELF\x01\x01" + bytes(58), "64-bit little-endian"),
        (b"\x7fELF\x02\x02" + bytes(58), "64-bit little-endian"),
        (b"\x7fELF\x02\x01" + bytes(10) + b"\x02\x00" + bytes(46), "not a relocatable object"),
        (b"\x7fELF\x02\x01" + bytes(10) + b"\x01\x00" + bytes(46), "damaged"),
    ],
)
def test_other_files_are_refused(head: bytes, says: str) -> None:
    """What is no object for the linker is said to be so."""
    with pytest.raises(LinkError, match=says):
        elf.read_object(head)


def test_every_truncation_is_noticed(data: bytes) -> None:
    """A file cut off anywhere is a LinkError."""
    for length in range(len(data)):
        with pytest.raises(LinkError):
            elf.read_object(data[:length])


def test_no_damage_raises_anything_else(data: bytes) -> None:
    """Any bytes give an object or a LinkError, and so does rewriting it."""
    rng = random.Random(2)
    for _ in range(3000):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 6)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        with contextlib.suppress(LinkError):
            elf.read_object(bytes(damaged)).rewritten({"puts": "my_puts"})
