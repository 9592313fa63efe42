/*
 * cgroup.h - the memory controller of the control group (version 2) that the process is in.
 *
 * Read as text from its directory, which the option `cgroup` names, or finds.
 */
#ifndef Q_MALLOC_CGROUP_H
#define Q_MALLOC_CGROUP_H

#include "base/types.h"

/* memory.max of the group and all above it, less a sixteenth for what is not heap; 0: no limit. */
size_t q_cgroup_limit(void);

/*
 * Whether memory is short outside: what the group or one above it holds, pages
 * of files aside, comes near its memory.high or up to its memory.max, or tasks
 * waited for memory for a tenth of the last ten seconds (memory.pressure;
 * without a group that of the system).
 */
bool q_cgroup_pressure(void);

#endif
