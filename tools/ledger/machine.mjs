// Which of a kernel's machine codes a GPU runs.

/** "sm_90a" is { major: 9, minor: 0, exact: true }. */
function parse(arch) {
  const [, digits, letter] = /^sm_(\d+)([a-z]?)$/.exec(arch);
  return { major: Number(digits.slice(0, -1)), minor: Number(digits.slice(-1)), exact: letter !== '' };
}

/** Whether a GPU of compute capability `cc` ("9.0") runs this machine code: the same major version, no newer minor one. */
function runs(arch, cc) {
  const [major, minor] = cc.split('.').map(Number);
  const code = parse(arch);
  return code.major === major && (code.exact ? code.minor === minor : code.minor <= minor);
}

/** Of kernels with one symbol, the one that runs on `cc`; undefined where the driver would translate PTX. */
export function chosen(kernels, cc) {
  const rank = (arch) => 2 * parse(arch).minor + (parse(arch).exact ? 1 : 0);
  return kernels.filter((kernel) => runs(kernel.arch, cc)).sort((a, b) => rank(b.arch) - rank(a.arch))[0];
}

/** Newer machine code first. */
export function newerFirst(a, b) {
  const rank = (arch) => 10 * parse(arch).major + parse(arch).minor + (parse(arch).exact ? 0.5 : 0);
  return rank(b) - rank(a);
}
