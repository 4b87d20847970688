"""`python -m corpus fetch | list`."""

from __future__ import annotations

import sys

from corpus.fetch import CorpusUnavailable, fetch
from corpus.recordings import recordings


def main(arguments: list[str]) -> int:
    if arguments not in (["fetch"], ["list"]):
        print("usage: python -m corpus fetch|list", file=sys.stderr)
        return 2
    try:
        fetch(lambda line: print(line, flush=True))
    except CorpusUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    if arguments == ["list"]:
        for recording in recordings():
            turn = "turn" if recording.turn else ""
            print(
                f"{recording.id:34} {recording.seconds:6.2f} s {recording.sample_rate:6} Hz  "
                f"{recording.kind:9} {turn:4}  {recording.text}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
