"""`hora`: the sender's wall clock, to the second."""

import re
from datetime import datetime

_CLOCK = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})([ Tt])([0-9]{2}):([0-9]{2}):([0-9]{2})"
    # RFC 3339, section 5.6: fraction and offset.
    r"((?:\.[0-9]+)?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]))?"
)


def parse_hora(text: str) -> str | None:
    """Read `YYYY-MM-DD HH:MM:SS` or RFC 3339, in the years that `DATETIME` holds.

    Of the latter the wall clock is kept and the offset dropped, because the
    column is the sender's local time; a fraction of a second is cut, never
    rounded into the next day.
    """
    match = _CLOCK.fullmatch(text)
    if match is None:
        return None
    year, month, day, joint, hour, minute, second, offset = match.groups()
    if joint != " " and offset is None:
        return None
    # RFC 3339 knows second 60; the wall clock of a leap second is shown as 59.
    if second == "60" and offset is not None:
        second = "59"
    if year < "1000":
        return None
    try:
        datetime(int(year), int(month), int(day), int(hour), int(minute), int(second))
    except ValueError:
        return None
    return f"{year}-{month}-{day} {hour}:{minute}:{second}"
