"""Where buffers live and work is queued. Both sides of a comparison use the same torch tensors on the same stream: on a
GPU torch allocates them and our plans take their addresses; on an emulated device the library allocates and torch looks
on."""
import ctypes
import math

TORCH_DTYPES = {'f32': 'float32', 'f16': 'float16', 'bf16': 'bfloat16', 'u4': 'uint8'}
ITEM_BYTES = {'f32': 4, 'f16': 2, 'bf16': 2, 'u4': 0.5}


def stored(shape, dtype):
    """The shape of the torch tensor that holds one of ours: of u4, two elements to a byte, the even one low."""
    return (*shape[:-1], shape[-1] // 2) if dtype == 'u4' else tuple(shape)


def strides(shape):
    """Of a tensor without gaps, in elements."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


class _Machine:
    def __init__(self, torch, library, index):
        self.torch, self.library, self.index = torch, library, index
        self.info = library.device_info(index)
        self.name = self.info.name.decode()

    def dtype(self, name):
        return getattr(self.torch, TORCH_DTYPES[name])

    def random(self, shape, dtype, seed):
        """Standard normal values, of u4 uniform ones; the same for the same seed on the same kind of device."""
        generator = self.torch.Generator(device=self.device)
        generator.manual_seed(seed)
        made = self.empty(shape, dtype)
        return made.random_(generator=generator) if dtype == 'u4' else made.normal_(generator=generator)


class CudaMachine(_Machine):
    """A GPU. Nothing runs on the legacy default stream, which no graph can capture."""

    emulated = False

    def __init__(self, torch, library, index):
        super().__init__(torch, library, index)
        torch.cuda.set_device(index)
        self.device = f'cuda:{index}'
        self.lane = torch.cuda.Stream(device=index)
        self.stream = self.lane.cuda_stream
        torch.cuda.set_stream(self.lane)

    def empty(self, shape, dtype):
        return self.torch.empty(stored(shape, dtype), dtype=self.dtype(dtype), device=self.device)

    def synchronize(self):
        self.torch.cuda.synchronize()

    def free_bytes(self):
        return self.torch.cuda.mem_get_info(self.index)[0]

    def release(self):
        """Gives what no tensor uses any more back to the device."""
        self.torch.cuda.empty_cache()


class EmulatedMachine(_Machine):
    """A device of libkernwatt_emu.so, whose memory is host memory that both sides can reach. For tests; it is never
    timed."""

    emulated = True
    device = 'cpu'

    def __init__(self, torch, library, index):
        super().__init__(torch, library, index)
        self.stream = library.pointer('stream_create', index)
        self._event = library.pointer('event_create', index, 0)
        self._allocated = []

    def empty(self, shape, dtype):
        count = int(math.prod(shape) * ITEM_BYTES[dtype])
        address = self.library.pointer('alloc', self.index, count)
        self._allocated.append(address)
        memory = (ctypes.c_char * count).from_address(address)
        return self.torch.frombuffer(memory, dtype=self.dtype(dtype)).view(*stored(shape, dtype))

    def synchronize(self):
        table = self.library.table
        self.library.must(table.event_record(self._event, self.stream), 'event_record')
        self.library.must(table.event_wait(self._event), 'event_wait')

    def free_bytes(self):
        free, total = ctypes.c_uint64(), ctypes.c_uint64()
        status = self.library.table.memory_info(self.index, ctypes.byref(free), ctypes.byref(total))
        self.library.must(status, 'memory_info')
        return free.value

    def release(self):
        """Frees everything: called once nothing of a case is in use."""
        for address in self._allocated:
            self.library.must(self.library.table.free(self.index, address), 'free')
        self._allocated.clear()
