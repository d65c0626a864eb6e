"""Clocks, power, temperature and reasons for slowing down, from NVML at run time. A meter that cannot be had says why; its
readings are then None, never 0."""
import ctypes
import os
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


class Meter:
    """Readings of one GPU, by its UUID ("GPU-..."). `reason` says why there are none."""

    def __init__(self, uuid):
        self.reason = self.driver = None
        self._device = ctypes.c_void_p()
        try:
            self._library = ctypes.CDLL(os.environ.get('KERNWATT_NVML', 'libnvidia-ml.so.1'))
        except OSError as error:
            self.reason = f'NVML does not load: {error}'
            return
        for call, taken in (('nvmlInit_v2', ()), ('nvmlDeviceGetHandleByUUID', (uuid.encode(), ctypes.byref(self._device)))):
            status = self._call(call, *taken)
            if status != 0:
                self.reason = f'{call} returned {status}'
                return
        text = ctypes.create_string_buffer(96)
        if self._call('nvmlSystemGetDriverVersion', text, len(text)) == 0:
            self.driver = text.value.decode()

    def _call(self, name, *taken):
        try:
            return getattr(self._library, name)(*taken)
        except AttributeError:
            return f'nothing: NVML has no {name}'

    def _number(self, kind, name, *taken):
        value = kind()
        status = self._call(name, self._device, *taken, ctypes.byref(value))
        return value.value if status == 0 else None

    def read(self):
        """One reading: FIELDS in SI units (power is the driver's average over about a second), and what throttles the device."""
        if self.reason is not None:
            return None
        scaled = lambda value, scale: None if value is None else value * scale
        mask = None
        for name in ('nvmlDeviceGetCurrentClocksEventReasons', 'nvmlDeviceGetCurrentClocksThrottleReasons'):
            if mask is None:
                mask = self._number(ctypes.c_ulonglong, name)
        return {
            'smClockHz': scaled(self._number(ctypes.c_uint, 'nvmlDeviceGetClockInfo', SM_CLOCK), 10**6),
            'memoryClockHz': scaled(self._number(ctypes.c_uint, 'nvmlDeviceGetClockInfo', MEMORY_CLOCK), 10**6),
            'powerW': scaled(self._number(ctypes.c_uint, 'nvmlDeviceGetPowerUsage'), 1e-3),
            'temperatureC': self._number(ctypes.c_uint, 'nvmlDeviceGetTemperature', GPU_SENSOR),
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
