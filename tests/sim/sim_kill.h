/* A disk whose user can be killed: a process that ends without a power failure.
 *
 * Wraps a disk. At the chosen step (counted as the simulated disk does), and ever after, every call
 * fails and changes nothing more, as if the process were gone; what it wrote stays with the disk
 * below, synced or not, so a power failure may still take it. Files are closed and locks given up
 * as usual. */
#ifndef VEX_TESTS_SIM_KILL_H
#define VEX_TESTS_SIM_KILL_H

#include "store/disk.h"

/* inner is taken. */
vexi_disk *sim_kill_create(vexi_disk *inner);
/* Die at the step-th step from now (from 1); 0: never. A dead disk comes to life again. */
void sim_kill_at(vexi_disk *disk, uint64_t step);
/* `count` steps from the step-th from now on (from 1) fail with VEX_IO, undone; then all is well.
 */
void sim_kill_fail(vexi_disk *disk, uint64_t step, uint64_t count);
bool sim_kill_dead(const vexi_disk *disk);
uint64_t sim_kill_steps(const vexi_disk *disk);

#endif
