"""What a compiled kernel takes and is made of, and the budget that it is held to; no GPU and no driver needed.

The kernel is compiled as it is for a launch, and its machine code is read with NVIDIA's `cuobjdump` and `nvdisasm`.
"""

from __future__ import annotations

import importlib.util
import pathlib
import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass

from fastconv.cuda._kernel import ENTRY

CAPABILITIES = ((8, 0), (9, 0))
STATIC_SHARED = 48 << 10  # bytes; the linker does not check it
RESERVED_SHARED = 1 << 10  # of each block, for the system, from sm_80 on

_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")
_LABEL = re.compile(r"(\.L_\w+):")
_TARGET = re.compile(r"`\((\.L_\w+)\)")


@dataclass(frozen=True)
class Measured:
    """Registers of a thread, its stack and the block's shared memory in bytes; how often each instruction occurs."""

    registers: int
    stack: int
    shared: int
    instructions: Counter
    loops: tuple[Counter, ...]

    def count(self, name):
        """Instructions that are called this, or begin so and go on with a dot: LDG.E.128 is an LDG and an LDG.E."""
        return _count(self.instructions, name)

    def share(self, name):
        """Of the loop with the most of these instructions, the part that they make."""
        loop = max(self.loops, key=lambda each: (_count(each, name), -each.total()))
        return _count(loop, name) / loop.total()


def _count(instructions, name):
    return sum(count for each, count in instructions.items() if each == name or each.startswith(name + "."))


def measured(kernel, capability):
    """A kernel for one compute capability."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "kernel.cubin"
        path.write_bytes(kernel.machine_code(capability))
        usage = _tool("cuobjdump", "-res-usage", path)
        listing = _tool("nvdisasm", "-c", path)
    # Functions that the kernel calls, as a division's, are listed beside it.
    of_kernel = rf"Function {ENTRY}:\s+REG:(\d+) STACK:(\d+) SHARED:(\d+)"
    registers, stack, shared = map(int, re.search(of_kernel, usage).groups())
    return Measured(registers, stack, shared, *_read(listing))


def _tool(name, *arguments):
    package = importlib.util.find_spec("nvidia")
    found = [path for root in package.submodule_search_locations for path in pathlib.Path(root).glob(f"cu*/bin/{name}")]
    return subprocess.run([found[0], *arguments], capture_output=True, text=True, check=True).stdout


def _read(listing):
    """All instructions, and those of each loop: from where a branch leads back to, to the branch."""
    names, labels, loops = [], {}, []
    for line in listing.splitlines():
        if label := _LABEL.match(line.strip()):
            labels[label[1]] = len(names)
        if instruction := _INSTRUCTION.search(line):
            names.append(instruction[1])
            target = _TARGET.search(line) if instruction[1].startswith("BRA") else None
            begin = labels.get(target[1]) if target else None
            if begin is not None and begin < len(names) - 1:
                loops.append(Counter(names[begin:]))
    return Counter(names), tuple(loops)


@dataclass(frozen=True)
class Budget:
    """What a kernel may take, and what it must be made of.

    Attributes
    ----------
    registers
        Most registers of a thread.
    at_least
        Instructions and how often they must occur.
    never
        Instructions that must not occur.
    main_loop
        An instruction, and its least share of the loop that has the most of it.
    """

    registers: int
    at_least: tuple[tuple[str, int], ...] = ()
    never: tuple[str, ...] = ()
    main_loop: tuple[str, float] | None = None

    def excesses(self, found):
        """Every point in which a kernel breaks the budget."""
        if found.registers > self.registers:
            yield f"{found.registers} registers, {self.registers} allowed"
        if found.stack or found.count("LDL") or found.count("STL"):
            yield f"spills: stack of {found.stack} bytes, {found.count('LDL')} loads, {found.count('STL')} stores"
        if found.shared > STATIC_SHARED + RESERVED_SHARED:
            yield f"{found.shared} bytes of shared memory"
        for name, least in self.at_least:
            if found.count(name) < least:
                yield f"{found.count(name)} {name}, {least} needed"
        for name in self.never:
            if found.count(name):
                yield f"{found.count(name)} {name}"
        if self.main_loop is not None and found.share(self.main_loop[0]) < self.main_loop[1]:
            yield f"{self.main_loop[0]} is {found.share(self.main_loop[0]):.0%} of the main loop"


def hold(kernel, budget):
    """Fail unless the kernel keeps the budget on every processor."""
    for capability in CAPABILITIES:
        excesses = list(budget.excesses(measured(kernel, capability)))
        assert not excesses, f"{kernel} on sm_{capability[0]}{capability[1]}: {'; '.join(excesses)}"
