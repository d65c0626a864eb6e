# How the emulator and the kernels that run in it are compiled (docs/gpu.md). Included once, by the top CMakeLists.txt.
#
#   kw_emulator(TARGET [flags...])                       an object library of the emulator's runtime
#   kw_emulated_sources(TARGET MODE file.cu...)          adds CUDA sources to TARGET, compiled for the host in a MODE:
#     plain   as they are
#     race    -fsanitize=thread, whose hooks the runtime defines in place of libtsan
#     asan    -fsanitize=address,undefined; the runtime needs -fsanitize=address too

# The emulator runs where it is built. Contracted products would make results depend on the machine; patterns in variables
# make an uninitialised accumulator show.
set(kw_emu_flags -Wall -Wextra -Wno-unknown-pragmas -Wno-psabi -Wno-maybe-uninitialized -fno-strict-aliasing
                 -ftrivial-auto-var-init=pattern -ffp-contract=off -march=native -g)
file(GLOB kw_emu_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/core/emu/*.cc)
list(REMOVE_ITEM kw_emu_sources ${CMAKE_SOURCE_DIR}/kernels/core/emu/library.cc)

function(kw_emulator target)
  add_library(${target} OBJECT ${kw_emu_sources})
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_compile_options(${target} PRIVATE ${kw_emu_flags} -O3 ${ARGN})
  target_compile_definitions(${target} PUBLIC KW_EMU PRIVATE KW_SOURCE_ROOT="${CMAKE_SOURCE_DIR}/")
  target_include_directories(${target} SYSTEM PUBLIC ${CUDAToolkit_INCLUDE_DIRS})
  target_link_libraries(${target} PUBLIC Threads::Threads ${CMAKE_DL_LIBS})
endfunction()

# A .cu file that nvcc also compiles reaches g++ through a file that includes it.
function(kw_emulated_sources target mode)
  set(flags_plain -O2)
  set(flags_race -O1 -finline-small-functions -fsanitize=thread)
  set(flags_asan -O1 -fsanitize=address,undefined)
  foreach(source ${ARGN})
    get_filename_component(source ${source} ABSOLUTE)
    get_filename_component(name ${source} NAME_WE)
    set(wrapper ${CMAKE_CURRENT_BINARY_DIR}/emulated/${target}/${name}.cc)
    file(GENERATE OUTPUT ${wrapper} CONTENT "#include \"${source}\"\n")
    set_source_files_properties(${wrapper} PROPERTIES COMPILE_OPTIONS "${kw_emu_flags};${flags_${mode}}")
    target_sources(${target} PRIVATE ${wrapper})
  endforeach()
endfunction()

kw_emulator(kernwatt_emu_core)
