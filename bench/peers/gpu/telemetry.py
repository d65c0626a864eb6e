"""Clocks, power, temperature and reasons for throttling while something runs, through the NVML binding in
tools/gpu/nvml.py. A meter that cannot be had says why; its readings are then None, never 0."""
import ctypes
import importlib.util
import pathlib
import statistics
import threading

PERIOD_SECONDS = 0.05
# nvmlClockType_t and nvmlTemperatureSensors_t
SM_CLOCK, MEMORY_CLOCK, GPU_SENSOR = 1, 2, 0
# What slows a busy device down, of nvmlClocksEventReasons; the others say that it idles or was told its clocks.
THROTTLES = {
    0x4: 'sw-power-cap',
    0x8: 'hw-slowdown',
    0x20: 'sw-thermal',
    0x40: 'hw-thermal',
    0x80: 'hw-power-brake',
}
FIELDS = ('smClockHz', 'memoryClockHz', 'powerW', 'temperatureC')


def binding():
    """tools/gpu/nvml.py, whose folder is no package."""
    path = pathlib.Path(__file__).resolve().parents[3] / 'tools/gpu/nvml.py'
    spec = importlib.util.spec_from_file_location('kernwatt_nvml', path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


class Meter:
    """Readings of one GPU, by its UUID ("GPU-..."). `reason` says why there are none."""

    def __init__(self, uuid, nvml=None):
        nvml = nvml or binding()
        self._error = nvml.NvmlError
        self.reason = self.driver = self._device = None
        try:
            self._device = nvml.Nvml(uuid)
            self.driver = self._device.string('nvmlSystemGetDriverVersion', device=False)
        except self._error as error:
            self.reason = None if self._device else str(error)

    def _number(self, name, *taken, scale=1, kind=ctypes.c_uint):
        try:
            return self._device.number(name, *taken, kind=kind) * scale
        except self._error:
            return None

    def read(self):
        """One reading: FIELDS in SI units (power is the driver's average over about a second), and what throttles the
        device; None for what NVML does not say."""
        if self.reason is not None:
            return None
        mask = None
        for name in ('nvmlDeviceGetCurrentClocksEventReasons', 'nvmlDeviceGetCurrentClocksThrottleReasons'):
            if mask is None:
                mask = self._number(name, kind=ctypes.c_ulonglong)
        return {
            'smClockHz': self._number('nvmlDeviceGetClockInfo', SM_CLOCK, scale=10**6),
            'memoryClockHz': self._number('nvmlDeviceGetClockInfo', MEMORY_CLOCK, scale=10**6),
            'powerW': self._number('nvmlDeviceGetPowerUsage', scale=1e-3),
            'temperatureC': self._number('nvmlDeviceGetTemperature', GPU_SENSOR),
            'throttled': None if mask is None else [name for bit, name in THROTTLES.items() if mask & bit],
        }


class Watch:
    """Reads the meter every 50 ms while a block runs: `with Watch(meter) as watch: ...; watch.summary()`."""

    def __init__(self, meter):
        self._meter, self._readings, self._ended = meter, [], threading.Event()
        self.before = self.after = None

    def __enter__(self):
        self.before = self._meter.read()
        self._thread = threading.Thread(target=self._run, daemon=True)
        if self.before is not None:
            self._thread.start()
        return self

    def _run(self):
        while not self._ended.wait(PERIOD_SECONDS):
            self._readings.append(self._meter.read())

    def __exit__(self, *_):
        self._ended.set()
        if self.before is not None:
            self._thread.join()
            self.after = self._meter.read()

    def summary(self):
        """before, during (min, median, max of each field and every reason seen) and after, or why there is nothing."""
        during = None
        if self._readings:
            during = {'n': len(self._readings)}
            for field in FIELDS:
                values = [one[field] for one in self._readings if one[field] is not None]
                during[field] = (
                    {'min': min(values), 'median': statistics.median(values), 'max': max(values)} if values else None
                )
            known = [one['throttled'] for one in self._readings if one['throttled'] is not None]
            during['throttled'] = sorted({name for one in known for name in one}) if known else None
        return {
            'source': None if self._meter.reason else 'nvml',
            'reason': self._meter.reason,
            'before': self.before,
            'during': during,
            'after': self.after,
        }
