// CUDA status codes as kw::Error: which call failed, CUDA's name for it and CUDA's sentence.
#pragma once
#include <cuda_runtime_api.h>

#include <string>

#include "../error.h"

namespace kw {

// Errors after which the context accepts no more work; only a new process helps.
inline bool is_device_lost(cudaError_t status) {
  switch (status) {
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorContained:
    case cudaErrorTensorMemoryLeak:
    case cudaErrorContextIsDestroyed:
    case cudaErrorMpsClientTerminated:
    case cudaErrorExternalDevice:
      return true;
    default:
      return false;
  }
}

inline std::string describe(const char* call, cudaError_t status) {
  return std::string(call) + ": " + cudaGetErrorName(status) + " (" + cudaGetErrorString(status) + ")";
}

// Throws OUT_OF_MEMORY, DEVICE_LOST or CUDA.
inline void cuda_check(const char* call, cudaError_t status) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // so that this failure does not show up again in a later, unrelated call
  throw Error(status == cudaErrorMemoryAllocation ? Code::OUT_OF_MEMORY
              : is_device_lost(status)            ? Code::DEVICE_LOST
                                                  : Code::CUDA,
              describe(call, status));
}

}  // namespace kw
