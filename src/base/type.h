/* Names of column types, as commands take them and messages and replies give them. */
#ifndef VEXI_BASE_TYPE_H
#define VEXI_BASE_TYPE_H

#include "vexlake.h"

/* "int64", "double", "string", "bool" or "timestamp"; never NULL. */
const char *vexi_type_name(vex_type type);

#endif
