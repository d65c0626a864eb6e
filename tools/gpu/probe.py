"""Part probe: what this machine is, as probe.json: GPU as nvidia-smi and the library see it, toolkit, CPU, memory, Python
packages, container. Reads only. Every item is a value or a state with its reason."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys

import items
import library

SMI = """name uuid pci.bus_id driver_version compute_cap vbios_version memory.total clocks.sm clocks.mem clocks.max.sm
    clocks.max.mem power.limit power.default_limit power.max_limit power.draw temperature.gpu pstate ecc.mode.current
    mig.mode.current persistence_mode compute_mode clocks_event_reasons.active""".split()
PACKAGES = ['torch', 'triton', 'numpy', 'nvidia-ml-py', 'flash-attn', 'cuda-python']
TOOLS = ['nvcc', 'cmake', 'ninja', 'g++', 'compute-sanitizer', 'git']


def run(command):
    """(what it printed, why it failed): one of them is None."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        return None, f'{command[0]} is not on PATH'
    except (OSError, subprocess.SubprocessError) as error:
        return None, str(error)
    said = (done.stdout + done.stderr).strip()
    if done.returncode == 0:
        return said, None
    return None, f"exit code {done.returncode}: {(said.splitlines() or [''])[-1]}"


def smi(*fields):
    index = os.environ.get('CUDA_VISIBLE_DEVICES', '0').split(',')[0] or '0'
    said, why = run(['nvidia-smi', '-i', index, f"--query-gpu={','.join(fields)}", '--format=csv,noheader'])
    return (None, why) if said is None else (said.splitlines()[0].split(', '), None)


def gpu(out):
    """One query, since each may start the driver anew; where that is refused because of one field, one query each."""
    together, _ = smi(*SMI)
    for i, field in enumerate(SMI):
        cells, why = (together[i : i + 1], None) if together and len(together) == len(SMI) else smi(field)
        name = f'nvidia-smi.{field}'
        if cells is None:
            out.no(name, 'missing' if 'not on PATH' in why else 'unsupported', why)
        elif re.fullmatch(r'\[.*\]', cells[0]):
            out.no(name, 'unsupported', cells[0])
        else:
            out.ok(name, cells[0])
    try:
        for name, value in library.describe(os.environ['KW_LIBRARY']).items():
            if value is None:
                out.no(f'library.{name}', 'unknown', 'the library does not know it')
            else:
                out.ok(f'library.{name}', value)
    except library.LibraryError as error:
        out.no('library', 'missing', error)


def cpu(out):
    with open('/proc/cpuinfo') as file:
        model = re.search(r'^model name\s*:\s*(.*)$', file.read(), re.M)
    if model:
        out.ok('cpu.model', model.group(1))
    else:
        out.no('cpu.model', 'unknown', '/proc/cpuinfo does not name it')
    out.ok('cpu.cores', len(os.sched_getaffinity(0)))
    with open('/proc/meminfo') as file:
        memory = dict(re.findall(r'^(\w+):\s+(\d+) kB$', file.read(), re.M))
    out.ok('memory.total', 1024 * int(memory['MemTotal']), 'B')
    out.ok('memory.available', 1024 * int(memory['MemAvailable']), 'B')
    out.ok('disk.free', shutil.disk_usage(os.environ['KW_OUT']).free, 'B')
    out.ok('kernel', platform.release())
    out.ok('libc', ' '.join(platform.libc_ver()))


def software(out):
    for name in TOOLS:
        said, why = run([name, '--version'])
        if said is None:
            out.no(name, 'missing', why)
        else:
            found = re.search(r'(release )?\d+(\.\d+)+[^\s,)]*', said)
            out.ok(name, found.group(0) if found else said.splitlines()[0])
    out.ok('python', platform.python_version(), note=sys.executable)
    for package in PACKAGES:
        try:
            out.ok(f'python.{package}', importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            out.no(f'python.{package}', 'missing', 'not installed for this python3')


def container(out):
    """Hints only: nothing says for certain that one runs in a container or a virtual machine."""
    hints = [path for path in ('/.dockerenv', '/run/.containerenv') if os.path.exists(path)]
    variables = ('container', 'KUBERNETES_SERVICE_HOST', 'NVIDIA_VISIBLE_DEVICES')
    hints += [f'{name} is set' for name in variables if name in os.environ]
    with open('/proc/cpuinfo') as file:
        hints += ['the CPU says hypervisor'] if re.search(r'^flags.*\bhypervisor\b', file.read(), re.M) else []
    out.ok('container.hints', hints)
    out.ok('user', os.getuid(), note='0 is root')


def main():
    out = items.Items(os.path.join(os.environ['KW_OUT'], 'probe.json'), 'kernwatt.gpu.probe/0')
    for ask in (gpu, cpu, software, container):
        ask(out)
    print(out.summary())


main()
