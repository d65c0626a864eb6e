"""Keeps OUTDIR/run.json, the record of one GPU run (schema kernwatt.gpu/0), for tools/gpu-run.sh.

python3 record.py open OUTDIR ROOT BUILD LIBRARY        names commit, library and device, prints 1 if it is
                                                        emulated, else 0; refuses another run's folder
python3 record.py start OUTDIR PART LIMIT               the part counts as interrupted until it has finished
python3 record.py finish OUTDIR PART LIMIT SECONDS EXIT|interrupted
python3 record.py summary OUTDIR PART...                prints summary.txt; exits 1 unless every PART passed

run.json is replaced in one step each time, so a run that is cut off at any moment leaves a whole one. Exits 2 with one
line when a folder cannot be used.
"""

import datetime
import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import library

SCHEMA = 'kernwatt.gpu/0'
ORDER = ['build', 'probe', 'conformance', 'check', 'sanitize', 'peers', 'meter', 'node']
MISSING = 77  # the exit code of a part that lacks its tool
TIMED_OUT, KILLED = 124, 137  # timeout(1): after its signal, or a part's own deadline; after KILL


def stop(message):
    print(f'gpu-run: {message}', file=sys.stderr)
    sys.exit(2)


def write(path, text):
    with open(path + '.new', 'w') as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + '.new', path)


def load(outdir):
    path = os.path.join(outdir, 'run.json')
    try:
        with open(path) as file:
            run = json.load(file)
        if run['schema'] == SCHEMA:
            return run
        stop(f"{path} has schema {run['schema']}, expected {SCHEMA}; choose a fresh folder")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        stop(f'{path} is not a record of this program; choose a fresh folder')


def save(outdir, run):
    run['parts'].sort(key=lambda part: ORDER.index(part['name']))
    write(os.path.join(outdir, 'run.json'), json.dumps(run, indent=2) + '\n')


def digest(path):
    try:
        with open(path, 'rb') as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return None


def command(*words):
    """What a command prints, stripped; None when it is not there or fails."""
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def built_from(root, build, sha):
    """Commit, whether it had changes, and the digest of kernels.json, which answers for its own library alone."""
    try:
        with open(os.path.join(build, 'kernels.json')) as file:
            kernels = json.load(file)
        if sha and kernels['library'] == sha:
            return {'commit': kernels['commit'], 'dirty': kernels['dirty'], 'kernels': kernels['digest']}
        why = 'kernels.json belongs to another library'
    except (OSError, ValueError, KeyError, TypeError):
        why = f'{build} holds no kernels.json'
    if os.path.exists(os.path.join(root, '.git')):
        commit = command('git', '-C', root, 'rev-parse', 'HEAD')
        if commit:
            dirty = bool(command('git', '-C', root, 'status', '--porcelain'))
            return {'commit': commit, 'dirty': dirty, 'kernels': None, 'kernelsReason': why}
    try:
        with open(os.path.join(root, 'bundle.json')) as file:
            bundle = json.load(file)
        return {'commit': bundle['commit'], 'dirty': bundle['dirty'], 'kernels': None, 'kernelsReason': why}
    except (OSError, ValueError, KeyError, TypeError):
        reason = f'no git here, and {why}'
        return {'commit': None, 'commitReason': reason, 'dirty': None, 'kernels': None, 'kernelsReason': why}


def device_of(path):
    """Device 0 as the library sees it, with nvidia-smi's driver; what nvidia-smi alone says where no library opens it."""
    index = os.environ.get('CUDA_VISIBLE_DEVICES', '0').split(',')[0] or '0'
    query = '--query-gpu=name,uuid,compute_cap,driver_version'
    row = command('nvidia-smi', '-i', index, query, '--format=csv,noheader') or ''
    name, uuid, cc, driver = ([cell.strip() or None for cell in row.split('\n')[0].split(',')] + [None] * 4)[:4]
    try:
        found = library.describe(path)
    except library.LibraryError as error:
        unknown = {'driver': None, 'runtime': None, 'emulated': None}
        return {'name': name, 'uuid': uuid, 'cc': cc, **unknown, 'reason': str(error)}
    device = {key: found[key] for key in ('name', 'uuid', 'cc', 'driver', 'runtime', 'emulated')}
    if not device['emulated'] and driver:
        device['driver'] = driver
    return device


def open_run(outdir, root, build, path):
    sha = digest(path)
    known = {**built_from(root, build, sha), 'library': sha, 'device': device_of(path)}
    run = load(outdir)
    if run:
        for what, before, now in (
            ('commit', run['commit'], known['commit']),
            ('library', run['library'], sha),
            ('GPU', run['device']['uuid'], known['device']['uuid']),
        ):
            if before and now and before != now:
                stop(f'{outdir} holds results of {what} {before[:20]}, expected {now[:20]}; choose a fresh folder')
    started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds')
    fresh = {'schema': SCHEMA, 'started': run['started'] if run else started}
    save(outdir, {**fresh, **known, 'parts': run['parts'] if run else []})
    if known['kernels']:
        shutil.copyfile(os.path.join(build, 'kernels.json'), os.path.join(outdir, 'kernels.json'))
    print(int(known['device']['emulated'] is True))


def results(outdir, name):
    """Files of a part: NAME.* and NAME-*."""
    return sorted(glob.glob(os.path.join(glob.escape(outdir), f'{name}[.-]*')))


def last_line(path):
    try:
        with open(path, errors='replace') as file:
            said = [line.strip() for line in file if line.strip()]
        return re.sub(r'\s+', ' ', said[-1])[:200] if said else ''
    except OSError:
        return ''


def start(outdir, name, limit):
    for path in results(outdir, name):
        os.remove(path)
    put(outdir, name, {'state': 'interrupted', 'exit': None, 'seconds': None, 'limit': limit, 'summary': 'cut off'})


def finish(outdir, name, limit, seconds, outcome):
    said = last_line(os.path.join(outdir, f'{name}.log'))
    code = None if outcome == 'interrupted' else int(outcome)
    if code is None:
        state, said = 'interrupted', f'interrupted after {seconds:.0f} s; {said}'
    elif code == TIMED_OUT or (code == KILLED and seconds >= limit - 0.5):
        state, said = 'timeout', f'cut off after {seconds:.0f} s; {said}'
    elif code == 0:
        state = 'passed'
    elif code == MISSING:
        state = 'missing'
    else:
        state, said = 'failed', said or f'exit code {code}, and nothing said'
    put(outdir, name, {'state': state, 'exit': code, 'seconds': seconds, 'limit': limit, 'summary': said.rstrip('; ')})


def put(outdir, name, fields):
    run = load(outdir)
    run['parts'] = [part for part in run['parts'] if part['name'] != name]
    files = [os.path.basename(path) for path in results(outdir, name)]
    run['parts'].append({'name': name, **fields, 'files': files})
    save(outdir, run)


def summary(outdir, asked):
    run = load(outdir)
    device = run['device']
    lines = [
        f"{'EMULATED, proves no GPU: ' if device['emulated'] else ''}{device['name']} ({device['uuid']}),"
        f" commit {(run['commit'] or 'unknown')[:12]}{' with local changes' if run['dirty'] else ''}",
        *([f"the library opened no device: {device['reason']}"] if 'reason' in device else []),
        f"{'part':<12} {'state':<12} {'seconds':>7} {'limit':>6}  summary",
    ]
    done = {part['name']: part for part in run['parts']}
    for name in sorted({*done, *asked}, key=ORDER.index):
        part = done.get(name)
        if part is None:
            lines.append(f"{name:<12} {'not run':<12} {'':>7} {'':>6}")
            continue
        seconds = '' if part['seconds'] is None else f"{part['seconds']:.1f}"
        earlier = '' if name in asked else '(earlier) '
        columns = f"{name:<12} {part['state']:<12} {seconds:>7} {part['limit']:>6}"
        lines.append(f"{columns}  {earlier}{part['summary']}".rstrip())
    passed = sum(1 for name in asked if name in done and done[name]['state'] == 'passed')
    lines.append(f'{passed} of {len(asked)} parts passed; results in {outdir}')
    text = '\n'.join(lines) + '\n'
    write(os.path.join(outdir, 'summary.txt'), text)
    print(text, end='')
    return 0 if passed == len(asked) else 1


def main(verb, outdir, *rest):
    if verb == 'open':
        open_run(outdir, *rest)
    elif verb == 'start':
        start(outdir, rest[0], int(rest[1]))
    elif verb == 'finish':
        finish(outdir, rest[0], int(rest[1]), float(rest[2]), rest[3])
    else:
        return summary(outdir, rest)


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
