// What to do where an energy counter cannot be read: the same line in `doctor` and `meter`.

export const powercapDenied = (folder: string, driver = 'intel-rapl'): string =>
  `sudo chmod a+r ${folder}/${driver}:*/energy_uj`;

export const hwmonDenied = (folder: string): string => `sudo chmod a+r ${folder}/energy*_input`;

export const perfDenied = 'sudo sysctl kernel.perf_event_paranoid=0';

export const stuck =
  'a virtual machine does not see energy counters: run on the host, or under QEMU with -accel kvm,rapl=true';

export const noDriver = 'sudo modprobe intel_rapl_msr';

export const hidden = 'in a container: start it with -v /sys:/host/sys:ro and meter with --sysfs /host/sys';

export const noNvml =
  'install the NVIDIA driver (in a container: run it with --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility)';

export const noGpu = 'in a container: run it with --gpus all; nvidia-smi -L lists GPUs';
