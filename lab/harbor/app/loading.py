"""How long a core takes from the beginning of its process until it listens.

Harbor's core is big: a real 2.3.2 answers 2.6 to 3.5 s after its process began. This small one would after about
one, and a failover that waits for core would look quicker than it is.
"""

import os
import random
import time
from pathlib import Path

# Seconds from the beginning of the process to the first answer. Source: starts of a real core 2.3.2 in this lab. How
# they are divided is not known; Harbor's sources say the order, and most of what they do comes after the migration.
START_S = (2.6, 3.5)
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def process_age() -> float:
    """Seconds since this process began, with what the interpreter took before the first line of a program."""
    # The name of a program, in brackets, may hold blanks; what follows counts from the third field.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    began = int(fields[22 - 3]) / _CLOCK_TICKS
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began


def left_to_load(drawn: float, age: float, waited: float) -> float:
    """How many seconds a core still loads before it listens.

    Args:
        drawn: seconds that this start takes when nothing has to be waited for.
        age: seconds since the process began.
        waited: seconds of these in which Redis or the database was not there: loading comes after them.
    """
    return max(0.0, drawn - (age - waited))


def load(waited: float) -> None:
    """Take the time that a real core takes for what this one has not: its configuration, handlers and routes."""
    time.sleep(left_to_load(random.uniform(*START_S), process_age(), waited))
