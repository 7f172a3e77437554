"""LLVM IR text to object code for this host, and object code to callable addresses."""

import functools
import itertools

import llvmlite.binding as llvm

from tapeout.host.features import host_features

ENTRY = "tapeout_entry"


@functools.cache
def _initialise() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def target_machine() -> llvm.TargetMachine:
    _initialise()
    features = host_features()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(
        cpu=features.cpu, features=features.attributes, opt=2, reloc="pic", codemodel="small"
    )


def optimised(ir: str, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    """A module after the passes that pay for themselves; the text is already in the form the code generator wants."""
    module = llvm.parse_assembly(ir)
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=1))
    passes = llvm.create_new_function_pass_manager()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    for function in module.functions:
        if not function.is_declaration:
            passes.run(function, builder)
    return module


def compile_object(ir: str) -> bytes:
    """Object code of a module."""
    machine = target_machine()
    code: bytes = machine.emit_object(optimised(ir, machine))
    return code


@functools.cache
def _linker() -> "llvm.LLJIT":
    _initialise()
    return llvm.create_lljit_compiler()


_serial = itertools.count()


def load_object(code: bytes) -> tuple[object, int]:
    """(what keeps the code alive, address of its entry)"""
    tracker = (
        llvm.JITLibraryBuilder()
        .add_object_img(code)
        .add_current_process()
        .export_symbol(ENTRY)
        .link(_linker(), f"kernel{next(_serial)}")
    )
    return tracker, tracker[ENTRY]
