"""How `harbor-ha` ends: the exit statuses of the command line, as its help names them."""

DONE, FAILED, USAGE, INVALID, NO_PREFECT, REFUSED, NOT_ENDED, DEGRADED = range(8)
