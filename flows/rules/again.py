"""Whether a backup that failed is worth another attempt in the same night, and when."""

from tasks.again import passing

# After the attempts that each call and each step make by themselves: what lasts longer than that is an outage.
FIRST_PAUSE_S = 300
ATTEMPTS = 5


def pause_before_another(error: BaseException, attempt: int) -> int | None:
    """Say how many seconds to wait before the next attempt; None when none would help.

    Five attempts within an hour and a quarter: 5, 10, 20 and 40 minutes apart. What a human must put right, such as a
    missing right or a full bucket, is not repeated; nor is a refusal.

    Args:
        error: what ended the attempt.
        attempt: its number, 1 at first.
    """
    if attempt >= ATTEMPTS or not passing(error):
        return None
    return int(FIRST_PAUSE_S * 2 ** (attempt - 1))
