"""Part sanitize: the small cases of kernwatt_check under compute-sanitizer's memcheck, racecheck and synccheck, a third
of the time each; sanitize.json holds { state, errors, cases } of each tool, sanitize-TOOL.log what it said."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

TOOLS = ['memcheck', 'racecheck', 'synccheck']
MISSING = 77
UNSUPPORTED = re.compile(r'Device not supported.*')
# memcheck and synccheck end with the first, racecheck with the second.
TOTALS = [r'ERROR SUMMARY: (\d+) error', r'RACECHECK SUMMARY: .*\((\d+) errors?, \d+ warnings?\)']
running = []  # the tool at work, in a session of its own, so that nothing of it outlives its share of the time


def on_terminate(*_):
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    sys.exit(143)


def lines(path):
    try:
        with open(path) as file:
            return sum(1 for _ in file)
    except OSError:
        return 0


def run(tool, command, seconds, out):
    """{ state, errors, cases, reason } of one tool; errors is null where the tool did not come to count them."""
    log = os.path.join(out, f'sanitize-{tool}.log')
    cases = os.path.join(out, f'sanitize-{tool}.jsonl')
    late = False
    with open(log, 'w') as file:
        process = subprocess.Popen(
            ['compute-sanitizer', '--tool', tool, '--error-exitcode', '99', *command, '--out', cases],
            stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )
        running.append(process)
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            late = True
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
    with open(log, errors='replace') as file:
        said = file.read()
    counts = [int(found.group(1)) for pattern in TOTALS if (found := re.search(pattern, said))]
    errors = max(counts) if counts else None
    result = {'errors': errors, 'cases': lines(cases)}
    unsupported = UNSUPPORTED.search(said)
    if unsupported:
        return {'state': 'missing', 'errors': None, 'cases': 0, 'reason': unsupported.group(0).strip()}
    if late:
        return {'state': 'timeout', **result, 'reason': f'cut off after {seconds:.0f} s'}
    if errors or code:
        last = ([line for line in said.splitlines() if line.strip()] or [''])[-1]
        return {'state': 'failed', **result, 'reason': f'exit code {code}; {last.strip()}'}
    left = re.search(r'(\d+) not run', said)
    if left:
        return {'state': 'timeout', **result, 'reason': left.group(0)}
    if errors is None or not result['cases']:
        return {'state': 'failed', **result, 'reason': f'{tool} gave no error summary, or no case ran'}
    return {'state': 'passed', **result}


def main():
    signal.signal(signal.SIGTERM, on_terminate)
    out, root, build = (os.environ[name] for name in ('KW_OUT', 'KW_ROOT', 'KW_BUILD'))
    program, cases = os.path.join(build, 'bin/kernwatt_check'), os.path.join(root, 'test/gpu/cases.jsonl')
    if not shutil.which('compute-sanitizer'):
        print('compute-sanitizer is not on PATH; the CUDA toolkit brings it')
        return MISSING
    for path, made_by in ((program, 'npm run build:cuda'), (cases, 'npm run cases')):
        if not os.path.exists(path):
            print(f'{path} is not there; {made_by} makes it')
            return MISSING
    share = max((int(os.environ['KW_LIMIT']) - 3) / len(TOOLS), 1)
    results = {}
    for tool in TOOLS:
        command = [program, os.environ['KW_LIBRARY'], cases, '--small', '--seconds', str(0.8 * share)]
        results[tool] = run(tool, command, share, out)
        path = os.path.join(out, 'sanitize.json')
        with open(path + '.new', 'w') as file:
            json.dump(results, file, indent=2)
        os.replace(path + '.new', path)
        print(f'{tool}: {results[tool]}')
    states = {result['state'] for result in results.values()}
    texts = []
    for tool, result in results.items():
        errors = 'unknown' if result['errors'] is None else result['errors']
        why = f" ({result['reason']})" if 'reason' in result else ''
        texts.append(f"{tool} {result['state']}, {errors} errors in {result['cases']} cases{why}")
    print('; '.join(texts))
    worst = next((state for state in ('failed', 'timeout', 'missing') if state in states), 'passed')
    return {'failed': 1, 'timeout': 124, 'missing': MISSING, 'passed': 0}[worst]


sys.exit(main())
