# One program per src/**/*_test.c, registered with ctest under module/name. A test that needs more
# than the library says so here.
file(GLOB test_sources CONFIGURE_DEPENDS src/*/*_test.c tests/unit/*_test.c tests/crash/*_test.c
  tests/recall/*_test.c tests/fault/*_test.c)
foreach(source IN LISTS test_sources)
  get_filename_component(name ${source} NAME_WE)
  get_filename_component(folder ${source} DIRECTORY)
  get_filename_component(module ${folder} NAME)
  set(target test_${module}_${name})
  add_executable(${target} ${source})
  target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
  target_compile_options(${target} PRIVATE -Wno-sign-conversion)
  set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS -Wno-shadow) # CHECK_OK nests
  target_link_libraries(${target} PRIVATE vex_flags vexlake_static carquet_headers PkgConfig::UV)
  if(module STREQUAL "resp" OR module STREQUAL "server" OR module STREQUAL "cli")
    if(TARGET vex_resp)
      target_sources(${target} PRIVATE $<TARGET_OBJECTS:vex_resp>)
    endif()
    if(TARGET vex_server AND NOT module STREQUAL "resp")
      target_sources(${target} PRIVATE $<TARGET_OBJECTS:vex_server>)
    endif()
  endif()
  if(module STREQUAL "cli") # all of it but main()
    file(GLOB cli_sources CONFIGURE_DEPENDS src/cli/*.c)
    list(FILTER cli_sources EXCLUDE REGEX "(main|_test)\\.c$")
    target_sources(${target} PRIVATE ${cli_sources})
  endif()
  add_test(NAME ${module}/${name} COMMAND ${target})
  set_tests_properties(${module}/${name} PROPERTIES TIMEOUT 900
    ENVIRONMENT "ASAN_OPTIONS=detect_leaks=1:abort_on_error=1;UBSAN_OPTIONS=print_stacktrace=1")
endforeach()

include(cmake/suites.cmake)
include(cmake/kernel_tests.cmake)
