"""Compiles LLVM IR from stdin to an object on stdout: the child process of `compiler`.

Arguments: triple, CPU, features, optimisation level. Exit status: 0; 65 with the error on stderr, where `<string>`
stands for the source's name; anything else is LLVM giving up, and the reason to have a process for it.
"""

from __future__ import annotations

import sys
from typing import Final

from orc_trio.native import llvm
from orc_trio.native.errors import CompileError, JitUnavailableError

_BITCODE: Final = (b"BC\xc0\xde", b"\xde\xc0\x17\x0b")


def compile_here(source: bytes, triple: str, cpu: str, features: str, optimize: int) -> bytes:
    """Compile IR in this process; LLVM may abort it.

    Raises:
        CompileError: the IR is wrong, or the target is not known here.
    """
    binding = llvm.binding()
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    binding.initialize_native_asmparser()  # for inline assembly
    try:
        target = binding.Target.from_triple(triple)
    except RuntimeError as exc:
        raise CompileError(f"cannot compile for {triple!r}: {exc}") from exc
    try:
        if source.startswith(_BITCODE):
            module = binding.parse_bitcode(source)
        else:
            module = binding.parse_assembly(source.decode("utf-8"))
        module.verify()
    except UnicodeDecodeError as exc:
        line = source.count(b"\n", 0, exc.start) + 1
        raise CompileError(f"<string>:{line}: this is not LLVM IR: neither bitcode nor UTF-8 text") from exc
    except RuntimeError as exc:
        text = str(exc).removeprefix("LLVM IR parsing error\n").strip()
        raise CompileError(text) from exc
    if module.triple and module.triple.partition("-")[0] != triple.partition("-")[0]:
        raise CompileError(f"<string>: this IR is for {module.triple}, and the executor is {triple}")
    machine = target.create_target_machine(cpu=cpu, features=features, opt=optimize, reloc="pic", codemodel="small")
    module.triple = triple
    module.data_layout = str(machine.target_data)
    if optimize:
        options = binding.create_pipeline_tuning_options(speed_level=optimize)
        builder = binding.create_pass_builder(machine, options)
        builder.getModulePassManager().run(module, builder)
    compiled: bytes = machine.emit_object(module)
    return compiled


def main() -> int:
    """Do as the module says."""
    triple, cpu, features, optimize = sys.argv[1:]
    try:
        compiled = compile_here(sys.stdin.buffer.read(), triple, cpu, features, int(optimize))
    except (CompileError, JitUnavailableError) as exc:
        print(exc, file=sys.stderr)
        return llvm.SOURCE_IS_WRONG
    sys.stdout.buffer.write(compiled)
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
