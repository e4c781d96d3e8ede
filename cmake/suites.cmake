# What ctest runs besides the unit tests: suites in Python against the real program, packaging and
# examples, tools/check, and the tests that start threads once more under ThreadSanitizer. Each is
# a ctest entry, so that the runner's last line counts everything. tools/test builds what they need.
#
# VEX_SUITES       register them (tools/test does; a bare preset has the unit tests alone).
# build/release    serves packaging, examples and symbols; build/tsan serves the tsan/ entries.

# Tests that start threads of their own. The target builds them; the preset tsan is for these.
set(concurrent_targets)
foreach(source IN LISTS test_sources)
  file(STRINGS ${source} starts_threads REGEX "pthread_create|uv_thread_create" LIMIT_COUNT 1)
  if(starts_threads)
    get_filename_component(name ${source} NAME_WE)
    get_filename_component(folder ${source} DIRECTORY)
    get_filename_component(module ${folder} NAME)
    list(APPEND concurrent_targets test_${module}_${name})
  endif()
endforeach()
add_custom_target(concurrent_tests DEPENDS ${concurrent_targets})

option(VEX_SUITES "Register the suites that tools/test prepares" OFF)
if(NOT VEX_SUITES)
  return()
endif()

set(sanitizer_environment
  "ASAN_OPTIONS=detect_leaks=1:abort_on_error=1"
  "UBSAN_OPTIONS=print_stacktrace=1"
  "TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1"
  "VEXLAKE_VERSITYGW=${CMAKE_SOURCE_DIR}/build/go/bin/versitygw")

foreach(target IN LISTS concurrent_targets)
  string(REGEX REPLACE "^test_([a-z]+)_" "tsan/\\1/" name ${target})
  add_test(NAME ${name} COMMAND ${CMAKE_SOURCE_DIR}/build/tsan/${target})
  set_tests_properties(${name} PROPERTIES TIMEOUT 1800 ENVIRONMENT "${sanitizer_environment}")
endforeach()

# One entry per file of a Python suite; VEXLAKE names the program that it drives.
set(python ${CMAKE_SOURCE_DIR}/build/venv/bin/python)
function(add_python_suite name file program)
  add_test(NAME ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
    COMMAND ${python} -B -m pytest -q -rs -p no:cacheprovider ${file})
  set_tests_properties(${name} PROPERTIES TIMEOUT 1800
    ENVIRONMENT "VEXLAKE=${program};${sanitizer_environment}")
endfunction()

file(GLOB suites CONFIGURE_DEPENDS tests/integration/test_*.py tests/interop/test_*.py)
foreach(file IN LISTS suites)
  get_filename_component(folder ${file} DIRECTORY)
  get_filename_component(folder ${folder} NAME)
  get_filename_component(name ${file} NAME_WE)
  string(REGEX REPLACE "^test_" "" name ${name})
  add_python_suite(${folder}/${name} ${file} ${CMAKE_BINARY_DIR}/vexlake)
endforeach()

# The scenarios once more on lakes in a bucket.
foreach(name abrupt_ends collections import limits pipelines protocol rows search)
  add_python_suite(s3/${name} ${CMAKE_SOURCE_DIR}/tests/integration/test_${name}.py
    ${CMAKE_BINARY_DIR}/vexlake)
  set_property(TEST s3/${name} APPEND PROPERTY ENVIRONMENT "VEXLAKE_TEST_LAKE=s3")
endforeach()

# Those with many clients at once, also under ThreadSanitizer.
foreach(name abrupt_ends pipelines collections shutdown slow_query http)
  add_python_suite(tsan/integration/${name} ${CMAKE_SOURCE_DIR}/tests/integration/test_${name}.py
    ${CMAKE_SOURCE_DIR}/build/tsan/vexlake)
endforeach()

# The installed library as an embedder meets it.
file(GLOB suites CONFIGURE_DEPENDS tests/packaging/test_*.py)
foreach(file IN LISTS suites)
  get_filename_component(name ${file} NAME_WE)
  string(REGEX REPLACE "^test_" "" name ${name})
  add_python_suite(packaging/${name} ${file} ${CMAKE_SOURCE_DIR}/build/release/vexlake)
endforeach()

foreach(check format includes banned headers symbols documents marks clang)
  add_test(NAME check/${check} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
    COMMAND ${CMAKE_SOURCE_DIR}/tools/check ${check})
  set_tests_properties(check/${check} PROPERTIES TIMEOUT 1800)
endforeach()
