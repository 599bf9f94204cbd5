"""What a program printed on a console that it shares with the processes it started."""

import re

_OTHERS = re.compile(r"\((?:ServeReplica:\S+|Proxy|Controller) pid=\d+\) [^\n]*\n")


def own_output(output: str) -> str:
    """Without the lines of others, which may stand in the middle of one of its own.

    An unbuffered program writes the end of a line by itself.
    """
    return _OTHERS.sub("", output)
