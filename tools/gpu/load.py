"""Keeps a GPU busy for tools/gpu/meter.py, which writes a word a line to its standard input and reads a line back once
the load runs: none (a context, no kernel), copy, gemm (normal values) or zeros (the same product of zeros).

python3 load.py LIBRARY EMULATED    through PyTorch where it is installed, else through the kernel library
"""

import importlib.util
import os
import queue
import sys
import threading

import library

GEMM, COPY_BYTES = 8192, 1 << 30
SMALL_GEMM, SMALL_COPY_BYTES = 64, 1 << 16  # for the emulator


class Torch:
    """cuBLAS and copies by PyTorch."""

    def __init__(self, torch):
        self.torch, self.what = torch, f'PyTorch {torch.__version__}, {GEMM} cubed bf16'
        self.stream = torch.cuda.Stream()
        self.cells = torch.zeros(COPY_BYTES, dtype=torch.uint8, device='cuda')
        self.copied = torch.empty_like(self.cells)
        normal = torch.randn(2, GEMM, GEMM, dtype=torch.bfloat16, device='cuda')
        self.operands = {'gemm': normal, 'zeros': torch.zeros_like(normal)}
        self.product = torch.empty(GEMM, GEMM, dtype=torch.bfloat16, device='cuda')
        torch.cuda.synchronize()

    def enqueue(self, kind):
        with self.torch.cuda.stream(self.stream):
            if kind == 'copy':
                self.copied.copy_(self.cells)
            else:
                x, w = self.operands[kind]
                self.torch.matmul(x, w, out=self.product)
            done = self.torch.cuda.Event(blocking=True)
            done.record(self.stream)
        return done.synchronize


class Ours:
    """gemm and copies of the kernel library."""

    def __init__(self, path, emulated):
        n, size = (SMALL_GEMM, SMALL_COPY_BYTES) if emulated else (GEMM, COPY_BYTES)
        self.library = library.Library(path)
        self.what = f'the kernel library, {n} cubed bf16'
        self.stream = self.library.pointer('stream_create', 0)
        self.size, self.cells, self.copied = size, self.library.alloc(size), self.library.alloc(size)
        count = n * n * 2
        # Signs and mantissas by chance, magnitudes of 0.5 to 2: zeros would draw less power.
        mask, base = (int.from_bytes(word * (count // 2), 'little') for word in (b'\xff\x80', b'\x00\x3f'))
        noise = (int.from_bytes(os.urandom(count), 'little') & mask | base).to_bytes(count, 'little')
        y = self.library.alloc(count)
        self.plans = {}
        for kind, content in (('gemm', noise), ('zeros', bytes(count))):
            x = self.library.alloc(count)
            self.library.copy(x, content, count, library.TO_DEVICE, self.stream)
            self.library.wait(self.library.mark(self.stream))
            self.plans[kind] = self.library.gemm(x, x, y, n)

    def enqueue(self, kind):
        if kind == 'copy':
            self.library.copy(self.copied, self.cells, self.size, library.ON_DEVICE, self.stream)
        else:
            self.plans[kind].enqueue(self.stream)
        event = self.library.mark(self.stream)
        return lambda: self.library.wait(event)


def listen(words):
    for line in sys.stdin:
        words.put(line.strip())
    words.put('quit')


def main(path, emulated):
    torch = None
    if importlib.util.find_spec('torch') and not emulated:
        import torch  # takes seconds, and leaves the GPU alone
    words = queue.Queue()
    threading.Thread(target=listen, args=[words], daemon=True).start()
    kind, work, pending = '', None, []
    while True:
        if kind in ('', 'none') or not words.empty():
            kind = words.get()
            if kind == 'quit':
                return
            for wait in pending:
                wait()
            pending = []
            try:
                if work is None:
                    work = Torch(torch) if torch else Ours(path, emulated)
                if kind != 'none':
                    pending = [work.enqueue(kind) for _ in range(4)]
            except Exception as error:  # whatever the load lacks is said, and the meter goes on without it
                print(f'no {type(error).__name__}: {error}'.replace('\n', ' '), flush=True)
                kind = 'none'
                continue
            print(f'ok {work.what}', flush=True)
        else:  # four in flight: the queue never runs empty
            pending.pop(0)()
            pending.append(work.enqueue(kind))


main(sys.argv[1], sys.argv[2] == '1')
