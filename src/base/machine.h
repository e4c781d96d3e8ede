/* What the machine has. */
#ifndef VEXI_BASE_MACHINE_H
#define VEXI_BASE_MACHINE_H

#include <stdint.h>

/* Bytes of memory, or what the container or service that the process runs in may use of it. */
uint64_t vexi_machine_memory(void);

#endif
