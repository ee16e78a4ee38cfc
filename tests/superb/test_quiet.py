"""The log holds what is said, not the bars."""

import sys

from speechft.superb.quiet import quiet


def test_bars_within_bars_leave_nothing_behind(tmp_path):
    from tqdm import tqdm

    log = tmp_path / "log"
    with quiet(log):
        print("first", end=" ")
        print("line")
        for _ in tqdm(range(3), file=sys.stderr):
            for _ in tqdm(range(3), file=sys.stderr, mininterval=0):
                pass
            tqdm.write("dev acc: 0.5")
    text = log.read_text()
    assert text.startswith("first line\n") and text.count("dev acc: 0.5\n") == 3
    assert "\x1b" not in text and "\r" not in text and "it/s" not in text and "\n\n" not in text
