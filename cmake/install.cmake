# What `make install` puts where: the header, both libraries, the program, pkg-config's file.
#
# The archive that the build itself links has our internal names and carquet's (unprefixed) as
# global symbols and needs carquet beside it. The one that is installed is a single relocatable
# object of both in which every name but vex_* has become local, so it can stand in a program
# whose own functions have any names.
if(VEX_SANITIZE OR NOT TARGET vex_api)
  return()
endif()

set(merged_dir ${CMAKE_BINARY_DIR}/merged)
set(merged_library ${merged_dir}/libvexlake.a)
add_custom_command(OUTPUT ${merged_library}
  COMMAND ${CMAKE_COMMAND} -E make_directory ${merged_dir}
  COMMAND ${CMAKE_COMMAND} -E rm -f ${merged_library}
  COMMAND ${CMAKE_LINKER} -r -o ${merged_dir}/vexlake.o
    --whole-archive $<TARGET_FILE:vexlake_static> --no-whole-archive ${carquet_library}
  COMMAND ${CMAKE_OBJCOPY} --wildcard "--keep-global-symbol=vex_*" ${merged_dir}/vexlake.o
  COMMAND ${CMAKE_AR} rcs ${merged_library} ${merged_dir}/vexlake.o
  COMMAND ${CMAKE_COMMAND} -E rm -f ${merged_dir}/vexlake.o
  DEPENDS vexlake_static carquet_project
  COMMENT "Merging carquet into libvexlake.a" VERBATIM)
add_custom_target(vexlake_merged ALL DEPENDS ${merged_library})

# pkg-config's file finds its prefix from where it lies: an installation may be staged or moved.
file(RELATIVE_PATH pc_prefix /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
string(REGEX REPLACE "/$" "" pc_prefix ${pc_prefix})
configure_file(cmake/vexlake.pc.in vexlake.pc @ONLY)
install(FILES include/vexlake.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${merged_library} DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS vexlake LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET vexlake_program)
  install(TARGETS vexlake_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(FILES ${CMAKE_BINARY_DIR}/vexlake.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES LICENSE README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
