/* salvage.h - see salvage.c. All for a forked child, before it has a second thread. */
#ifndef Q_ZONE_SALVAGE_H
#define Q_ZONE_SALVAGE_H

#include "zone/mmzone.h"

void q_zone_salvage(struct q_zone *zone);
void q_pcp_salvage(struct q_pcp *pcp);

#endif
