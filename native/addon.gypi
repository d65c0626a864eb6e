{
  # The addon: bindings, reference and CPU backend. No CUDA, no NVML: those are opened at run time.
  # Needs glibc 2.34 (Debian 12, Ubuntu 22.04, RHEL 9 and newer) and libgcc_s; libstdc++ is linked in and its symbols are kept to
  # the addon, so that neither the system's version of it nor the one inside Node matters. Included by a binding.gyp beside the
  # folders native/, kernels/ and tools/ (tools/stage.mjs); packages contain this file, but no binding.gyp, which npm would build.
  # Objects for one instruction set are a library each, because gyp has no flags per file; which file belongs where is its
  # suffix (tools/sources.mjs).
  'target_defaults': {
    'cflags': ['-O3', '-Wall', '-Wextra', '-fvisibility=hidden', '-fno-math-errno'],
    'cflags_cc': ['-std=c++20'],
    'cflags!': ['-O2', '-fno-exceptions', '-fno-omit-frame-pointer'],
    'cflags_cc!': ['-fno-exceptions', '-fno-rtti', '-std=gnu++14', '-std=gnu++17', '-std=gnu++20'],
  },
  'variables': {
    'v8_enable_webassembly%': 0,
    # 0 for AddressSanitizer, which replaces functions of libstdc++ and so needs the shared one.
    'static_libstdcxx%': 1,
  },
  'targets': [
    {
      'target_name': 'kernwatt',
      'sources': ['<!@(node tools/sources.mjs addon)'],
      'dependencies': ['kernwatt_cpu', 'kernwatt_ref'],
      'include_dirs': ['<!(node -p "require(\'node-addon-api\').include_dir")'],
      'defines': ['NAPI_VERSION=9', 'NAPI_CPP_EXCEPTIONS', 'NODE_ADDON_API_DISABLE_DEPRECATED', 'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS'],
      # Fills give the same numbers everywhere, so no fused multiply-add unless the source says so.
      'cflags_cc': ['-ffp-contract=off'],
      # nodelete: a worker that ends closes the addon while threads of ours may still be in it. gc-sections: parts of libstdc++
      # that nothing calls would ask for glibc 2.36 and another 700 KB.
      'ldflags': ['-Wl,-z,nodelete', '-Wl,--gc-sections', '-Wl,--version-script=<(module_root_dir)/native/addon.map'],
      'libraries': ['-ldl', '-lpthread'],
      'conditions': [
        ['static_libstdcxx==1', {'ldflags': ['-static-libstdc++']}],
        ['target_arch=="x64"', {'dependencies': ['kernwatt_avx2', 'kernwatt_avx512', 'kernwatt_avx512bf16', 'kernwatt_amxbf16']}],
      ],
    },
    {
      'target_name': 'kernwatt_ref',
      'type': 'static_library',
      'sources': ['<!@(node tools/sources.mjs ref)'],
      'cflags_cc': ['-ffp-contract=off'],
    },
    {
      'target_name': 'kernwatt_cpu',
      'type': 'static_library',
      'sources': ['<!@(node tools/sources.mjs cpu)'],
    },
  ],
  'conditions': [
    ['target_arch=="x64"', {
      'targets': [
        {
          'target_name': 'kernwatt_avx2',
          'type': 'static_library',
          'sources': ['<!@(node tools/sources.mjs avx2)'],
          'cflags': ['-mavx2', '-mfma', '-mf16c'],
        },
        {
          'target_name': 'kernwatt_avx512',
          'type': 'static_library',
          'sources': ['<!@(node tools/sources.mjs avx512)'],
          'cflags': ['-mavx512f', '-mavx512bw', '-mavx512vl', '-mavx512dq', '-mfma', '-mf16c'],
        },
        {
          'target_name': 'kernwatt_avx512bf16',
          'type': 'static_library',
          'sources': ['<!@(node tools/sources.mjs avx512bf16)'],
          'cflags': ['-mavx512f', '-mavx512bw', '-mavx512vl', '-mavx512dq', '-mavx512bf16', '-mavx512vnni', '-mfma', '-mf16c'],
        },
        {
          'target_name': 'kernwatt_amxbf16',
          'type': 'static_library',
          'sources': ['<!@(node tools/sources.mjs amxbf16)'],
          'cflags': [
            '-mavx512f', '-mavx512bw', '-mavx512vl', '-mavx512dq', '-mavx512bf16', '-mavx512vnni', '-mfma', '-mf16c',
            '-mamx-tile', '-mamx-bf16',
          ],
        },
      ],
    }],
  ],
}
