# Kernel tests that need another compiler or compilation than the library's.
#
#   kernel/simde, kernel/codes_simde
#                  the AVX-512 files compiled a second time through SIMDe, without AVX-512, so that
#                  their code is tested on machines that cannot run it
#   kernel/avx2, kernel/scalar
#                  the index tests on the variants that the dispatch does not choose here
#   kernel/neon, kernel/codes_neon
#                  the NEON files and the same tests, cross-compiled, under qemu
#
# What the machine lacks is reported as a skipped test that says what to install.

set(kernel_test_environment
  "ASAN_OPTIONS=detect_leaks=1:abort_on_error=1;UBSAN_OPTIONS=print_stacktrace=1")

function(add_skipped_test name message)
  add_test(NAME ${name} COMMAND ${CMAKE_COMMAND} -E echo "skipped: ${message}")
  set_tests_properties(${name} PROPERTIES SKIP_REGULAR_EXPRESSION "^skipped: ")
endfunction()

# SIMDe
find_path(SIMDE_INCLUDE simde/x86/avx512.h)
if(SIMDE_INCLUDE)
  # Through a file of another name, as the sources themselves have flags that enable AVX-512.
  set(simde_sources)
  foreach(part kernel_avx512 kernel_codes_avx512 kernel_codes_avx512vnni)
    file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/${part}_simde.c
      CONTENT "#include \"kernel/${part}.c\"\n")
    list(APPEND simde_sources ${CMAKE_BINARY_DIR}/${part}_simde.c)
  endforeach()
  set(simde_names)
  foreach(name kernels_avx512 kernels_avx512vnni avx512_hadamard avx512_scan_codes
      avx512_estimate_codes avx512_refine_codes avx512vnni_scan_codes avx512vnni_estimate_codes
      avx512vnni_refine_codes)
    list(APPEND simde_names vexi_${name}=vexi_${name}_simde)
  endforeach()
  add_library(kernel_simde OBJECT ${simde_sources})
  target_compile_definitions(kernel_simde PRIVATE VEX_SIMDE SIMDE_ENABLE_NATIVE_ALIASES
    ${simde_names})
  target_include_directories(kernel_simde PRIVATE tests)
  target_include_directories(kernel_simde SYSTEM PRIVATE ${SIMDE_INCLUDE})
  target_link_libraries(kernel_simde PRIVATE vex_flags)
  # Wide vectors pass between functions of one file only. More optimisation costs minutes. SIMDe adds
  # words with the signed + of C where the instruction wraps.
  target_compile_options(kernel_simde PRIVATE -Wno-psabi -O1
    -fno-sanitize=signed-integer-overflow)
  foreach(test "" codes_)
    add_executable(test_kernel_${test}simde src/kernel/kernel_${test}test.c
      $<TARGET_OBJECTS:kernel_simde>)
    target_compile_definitions(test_kernel_${test}simde PRIVATE VEX_TEST_SIMDE)
    target_include_directories(test_kernel_${test}simde PRIVATE tests)
    target_link_libraries(test_kernel_${test}simde PRIVATE vex_flags vexlake_static)
    add_test(NAME kernel/${test}simde COMMAND test_kernel_${test}simde)
    set_tests_properties(kernel/${test}simde PROPERTIES TIMEOUT 900
      ENVIRONMENT "${kernel_test_environment}")
  endforeach()
else()
  add_skipped_test(kernel/simde "no SIMDe (Debian: libsimde-dev)")
endif()

# The index on every variant that can be forced.
foreach(variant scalar avx2)
  add_test(NAME kernel/index_${variant} COMMAND ${CMAKE_COMMAND} -E env VEXLAKE_KERNEL=${variant}
    sh -c "$<TARGET_FILE:test_index_flat_test> && $<TARGET_FILE:test_index_ivf_test>")
  set_tests_properties(kernel/index_${variant} PROPERTIES TIMEOUT 900
    ENVIRONMENT "${kernel_test_environment}")
endforeach()

# NEON
find_program(AARCH64_GCC aarch64-linux-gnu-gcc)
find_program(QEMU_AARCH64 NAMES qemu-aarch64 qemu-aarch64-static)
if(AARCH64_GCC AND NOT DEFINED AARCH64_GCC_LINKS)
  # The compiler alone does not do: it needs the target's C library.
  file(WRITE ${CMAKE_BINARY_DIR}/neon_probe.c "#include <stdio.h>\nint main(void) { return puts(\"\") < 0; }\n")
  execute_process(COMMAND ${AARCH64_GCC} -static ${CMAKE_BINARY_DIR}/neon_probe.c -o
    ${CMAKE_BINARY_DIR}/neon_probe RESULT_VARIABLE neon_probe OUTPUT_QUIET ERROR_QUIET)
  if(neon_probe EQUAL 0)
    set(AARCH64_GCC_LINKS ON CACHE INTERNAL "The aarch64 cross compiler makes static programs")
  endif()
endif()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  message(STATUS "NEON kernels are tested natively")
elseif(AARCH64_GCC_LINKS AND QEMU_AARCH64)
  set(neon_sources src/base/status.c src/base/env.c src/kernel/kernel_scalar.c
    src/kernel/kernel_codes_scalar.c src/kernel/kernel_neon.c src/kernel/kernel_codes_neon.c
    src/kernel/kernel_distance.c src/kernel/kernel_dispatch.c)
  list(TRANSFORM neon_sources PREPEND ${CMAKE_SOURCE_DIR}/)
  file(GLOB neon_headers CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/base/*.h
    ${CMAKE_SOURCE_DIR}/src/kernel/*.h ${CMAKE_SOURCE_DIR}/src/kernel/*.inc
    ${CMAKE_SOURCE_DIR}/tests/kernel_variants.h)
  set(neon_werror)
  if(VEX_WERROR)
    set(neon_werror -Werror)
  endif()
  foreach(test "" codes_)
    set(neon_test ${CMAKE_SOURCE_DIR}/src/kernel/kernel_${test}test.c)
    add_custom_command(OUTPUT test_kernel_${test}neon
      COMMAND ${AARCH64_GCC} -std=c11 -D_DEFAULT_SOURCE -O2 -Wall -Wextra -Wpedantic -Wshadow
        -Wconversion -Wno-sign-conversion ${neon_werror} -ffp-contract=off -fno-math-errno
        -I${CMAKE_SOURCE_DIR}/src -I${CMAKE_SOURCE_DIR}/include -I${CMAKE_SOURCE_DIR}/tests
        ${neon_sources} ${neon_test} -static -lm -lpthread -o test_kernel_${test}neon
      DEPENDS ${neon_sources} ${neon_test} ${neon_headers} ${CMAKE_SOURCE_DIR}/tests/check.h
        ${CMAKE_SOURCE_DIR}/include/vexlake.h
      COMMENT "Cross-compiling the NEON kernels and their test" VERBATIM)
    add_custom_target(kernel_${test}neon ALL DEPENDS test_kernel_${test}neon)
    add_test(NAME kernel/${test}neon
      COMMAND ${QEMU_AARCH64} ${CMAKE_BINARY_DIR}/test_kernel_${test}neon)
    set_tests_properties(kernel/${test}neon PROPERTIES TIMEOUT 900)
  endforeach()
else()
  add_skipped_test(kernel/neon
    "no cross compiler or emulator (Debian: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user)")
endif()
