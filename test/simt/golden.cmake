# cmake -DTEST=simt_test -DRECORDED=recorded.sh -P golden.cmake: --record and --golden agree, and a change of any kind is
# noticed; recorded.sh tells nothing recorded from what agrees and what does not.
set(file ${CMAKE_CURRENT_BINARY_DIR}/simt_golden.txt)
function(run expected)
  execute_process(COMMAND ${TEST} ${ARGN} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT status EQUAL expected)
    message(FATAL_ERROR "${TEST} ${ARGN} exited with ${status}, expected ${expected}:\n${output}")
  endif()
endfunction()
function(changed expected pattern replacement)
  string(REGEX REPLACE "${pattern}" "${replacement}" other "${text}")
  if(other STREQUAL text)
    message(FATAL_ERROR "${file} does not hold ${pattern} as expected")
  endif()
  file(WRITE ${file} "${other}")
  run(${expected} ${ARGN} --golden ${file})
endfunction()
run(0 --record ${file})
run(0 --golden ${file})
file(READ ${file} text)
string(LENGTH "${text}" size)
if(size GREATER 65536)
  message(FATAL_ERROR "${file} has ${size} bytes, expected at most 65536: it is committed for every GPU")
endif()
changed(1 "(mma_m16n8k32_s8\texact 128x4\t)[0-9a-f][0-9a-f]" "\\1zz" mma)        # a digest
changed(1 "(elect_one\texact 1x4\t)04" "\\105" elect)                           # a short value
changed(1 "(\nex2\tevery 1 of 256x4\t......)[0-9a-f][0-9a-f]" "\\17f" ex2)       # beyond a tolerance
changed(0 "(\nex2\tevery 1 of 256x4\t)[0-9a-f][0-9a-f]" "\\100" ex2)             # within it
changed(1 "\nsetmaxnreg\t[^\n]*" "" setmaxnreg)                                 # one that is gone
changed(2 "\nsetmaxnreg" "\nsetminnreg\texact 1x1\t00\nsetmaxnreg")            # one that no test gives
changed(0 "# device emulator, sm_90" "# device emulator, sm_80" mma)            # from an older GPU
changed(2 "# device" "device" mma)                                             # not such a file
file(REMOVE ${file})

set(results ${CMAKE_CURRENT_BINARY_DIR}/simt_results)
function(recorded expected)
  execute_process(COMMAND sh ${RECORDED} ${TEST} ${results} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT status EQUAL expected)
    message(FATAL_ERROR "recorded.sh exited with ${status}, expected ${expected}:\n${output}")
  endif()
endfunction()
file(REMOVE_RECURSE ${results})
recorded(77)
file(WRITE ${results}/one/conformance.txt "${text}")
file(WRITE ${results}/other/notes.md "")
recorded(0)
string(REPLACE "elect_one\texact 1x4\t04" "elect_one\texact 1x4\t05" other "${text}")
file(WRITE ${results}/first/conformance.txt "${other}")
recorded(1)
file(REMOVE_RECURSE ${results})
