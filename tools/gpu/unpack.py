"""Unpacks a bundle of tools/gpu-bundle.sh: python3 unpack.py BUNDLE FOLDER. A folder made from the same bundle is kept."""

import hashlib
import lzma
import os
import shutil
import sys
import tarfile


def main(bundle, folder):
    with open(bundle, 'rb') as file:
        sha = hashlib.sha256(file.read()).hexdigest()
    stamp = os.path.join(folder, 'unpacked-from')
    if os.path.exists(stamp) and open(stamp).read() == sha:
        return
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(bundle, 'r:*') as archive:
        if hasattr(tarfile, 'data_filter'):
            archive.extractall(folder, filter='data')
        else:
            archive.extractall(folder)
    with open(stamp, 'w') as file:
        file.write(sha)


try:
    main(*sys.argv[1:])
except (OSError, tarfile.TarError, lzma.LZMAError, EOFError) as error:
    sys.exit(f'gpu-run: {sys.argv[1]} cannot be unpacked: {str(error).splitlines()[0]}')
