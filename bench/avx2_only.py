"""Makes copies of ONNX Runtime and OpenVINO whose libraries ask `avx2_only.c` what the CPU can do: `avx2_only.py FOLDER`.

Every CPUID instruction that the disassembler finds becomes UD2, which is as long. A copy of the same version is left alone.
"""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys

PACKAGES = ["onnxruntime", "openvino"]
# Libraries that choose kernels.
CHOOSING = re.compile(r"onnxruntime_pybind11_state|libopenvino\.so|libopenvino_intel_cpu_plugin|libtbb\.so")
CPUID, UD2 = b"\x0f\xa2", b"\x0f\x0b"


def disassembler(*arguments):
    return subprocess.run(["objdump", *arguments], check=True, capture_output=True, text=True).stdout


def patched(library):
    """Its bytes, and how many instructions are others now."""
    sections = re.findall(r"^ +\d+ \S+ +(\w+) +(\w+) +\w+ +(\w+) ", disassembler("-h", library), re.M)
    sections = [tuple(int(number, 16) for number in section) for section in sections]
    with open(library, "rb") as file:
        code = bytearray(file.read())
    found = re.findall(r"^ *([0-9a-f]+):\tcpuid", disassembler("-d", "--no-show-raw-insn", library), re.M)
    for address in (int(address, 16) for address in found):
        offset = next(address - start + at for size, start, at in sections if start and start <= address < start + size)
        if code[offset : offset + 2] != CPUID:
            sys.exit(f"avx2_only: {library}: at {address:#x} there is no CPUID")
        code[offset : offset + 2] = UD2
    return code, len(found)


def main(folder):
    if not shutil.which("objdump"):
        sys.exit("avx2_only: there is no objdump, which finds the instructions; it is a part of binutils")
    for name in PACKAGES:
        package = os.path.dirname(importlib.util.find_spec(name).origin)
        to = os.path.join(folder, name)
        version = importlib.metadata.version(name)
        stamp = os.path.join(to, "copied_version")
        if os.path.exists(stamp) and open(stamp).read() == version:
            continue
        # Whole or not at all.
        making = to + ".part"
        shutil.rmtree(making, ignore_errors=True)
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(package, making)
        replaced = 0
        for parent, _, files in os.walk(making):
            for file in filter(CHOOSING.search, files):
                code, count = patched(os.path.join(parent, file))
                with open(os.path.join(parent, file), "wb") as output:
                    output.write(code)
                replaced += count
        if replaced == 0:
            sys.exit(f"avx2_only: {name} does not ask for what the CPU can do")
        with open(os.path.join(making, "copied_version"), "w") as file:
            file.write(version)
        os.rename(making, to)


main(sys.argv[1])
