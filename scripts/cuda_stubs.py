"""Stand-ins for the CUDA libraries that the torch wheel links against, so that PyTorch can be imported for the CPU.

Without a GPU the set-up leaves gigabytes of them out. Nothing of them is called then, but the loader wants every library
and symbol to be there: each stand-in defines the symbols that torch wants of it, under the versions it wants them at.

    cuda_stubs.py TORCH OUT
"""

import collections
import pathlib
import re
import subprocess
import sys


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wanted_versions(library):
    """Which library each symbol version of `library` is to come from."""
    source, of = None, {}
    for line in run("readelf", "-VW", library).splitlines():
        if match := re.search(r"File: (\S+)", line):
            source = match[1]
        elif match := re.search(r"Name: (\S+)\s+Flags: \S+\s+Version:", line):
            of[match[1]] = source
    return of


def write_stub(folder, name, versions):
    code = "".join(f"void {symbol}(void) {{}}\n" for symbols in versions.values() for symbol in sorted(symbols))
    script = "".join(
        f"{version} {{ global: {' '.join(symbol + ';' for symbol in sorted(symbols))} }};\n"
        for version, symbols in versions.items()
        if version
    )
    (folder / "stub.c").write_text(code or "\n")
    (folder / "stub.map").write_text(script)
    command = ["cc", "-shared", "-fno-builtin", "-w", "-o", folder / name, folder / "stub.c", f"-Wl,-soname,{name}"]
    subprocess.run(command + ([f"-Wl,--version-script,{folder / 'stub.map'}"] if script else []), check=True)


def main(torch, out):
    libraries = [str(path) for path in sorted(torch.glob("lib/*.so*"))]
    missing = sorted({name for library in libraries for name in re.findall(r"(\S+) => not found", run("ldd", library))})
    stubs = {name: collections.defaultdict(set) for name in missing}
    for library in libraries:
        versions = wanted_versions(library)
        for line in run("nm", "-D", "--undefined-only", library).splitlines():
            symbol, _, version = line.split()[-1].partition("@")
            if versions.get(version) in stubs:
                stubs[versions[version]][version].add(symbol)
            elif missing and not version and re.match("cu|nccl|nvml", symbol):
                # Any library may define a symbol without a version.
                stubs[missing[-1]][""].add(symbol)
    for name, versions in stubs.items():
        write_stub(out, name, versions)


main(*map(pathlib.Path, sys.argv[1:]))
