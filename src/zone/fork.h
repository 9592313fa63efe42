/* fork.h - see fork.c. */
#ifndef Q_ZONE_FORK_H
#define Q_ZONE_FORK_H

#include "base/types.h"

void q_zone_fork_prepare(bool patient); /* see q_lock_for_fork() */
void q_zone_fork_parent(void);
void q_zone_fork_child(void);

#endif
