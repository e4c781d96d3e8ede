# carquet (pure C Parquet, MIT): built by its own CMake project from the sources that tools/setup
# unpacked, as a static library whose unprefixed symbols stay hidden. It is built without UBSan:
# its SSE file has one misaligned load.
include(ExternalProject)

set(carquet_source ${VEX_DEPS_DIR}/carquet/native)
if(NOT EXISTS ${carquet_source}/CMakeLists.txt)
  message(FATAL_ERROR "carquet is missing under ${VEX_DEPS_DIR}: run tools/setup first")
endif()
set(carquet_flags "-fPIC -fvisibility=hidden")
if(VEX_SANITIZE MATCHES "address")
  string(APPEND carquet_flags " -fsanitize=address -fno-omit-frame-pointer")
elseif(VEX_SANITIZE MATCHES "thread")
  string(APPEND carquet_flags " -fsanitize=thread")
endif()
set(carquet_build ${CMAKE_BINARY_DIR}/carquet)
set(carquet_library ${carquet_build}/libcarquet.a)
ExternalProject_Add(carquet_project
  SOURCE_DIR ${carquet_source}
  BINARY_DIR ${carquet_build}
  CMAKE_GENERATOR Ninja
  CMAKE_ARGS -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCARQUET_BUILD_CLI=OFF
    -DFETCHCONTENT_FULLY_DISCONNECTED=ON -DCMAKE_C_COMPILER=${CMAKE_C_COMPILER}
    -DCMAKE_C_FLAGS=${carquet_flags} -DCMAKE_DISABLE_FIND_PACKAGE_OpenMP=ON
    -DCMAKE_POSITION_INDEPENDENT_CODE=ON
  INSTALL_COMMAND ""
  BUILD_BYPRODUCTS ${carquet_library})

add_library(carquet_headers INTERFACE)
target_include_directories(carquet_headers SYSTEM INTERFACE ${carquet_source}/include)
add_dependencies(carquet_headers carquet_project)
add_library(carquet STATIC IMPORTED GLOBAL)
set_target_properties(carquet PROPERTIES IMPORTED_LOCATION ${carquet_library})
target_include_directories(carquet SYSTEM INTERFACE ${carquet_source}/include)
add_dependencies(carquet carquet_project)
