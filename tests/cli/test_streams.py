"""What comes in and goes out as bytes: streams that are answered as they come, encodings, marks, line ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from looplm.cli.lines import _read, lines_of, waiting

LOOPLM = [sys.executable, "-m", "looplm"]
ROOT = Path(__file__).resolve().parents[2]


def test_a_stream_is_answered_line_by_line() -> None:
    with subprocess.Popen([*LOOPLM, "solve", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as solving:
        assert solving.stdin and solving.stdout
        for question, answer in {"1+1": "1+1=2", "12+30": "12+30=42"}.items():
            solving.stdin.write(question + "\n")
            solving.stdin.flush()
            assert solving.stdout.readline().strip() == answer, "before the next is asked"
        solving.stdin.close()
    assert solving.returncode == 0


def test_batches_are_what_waits_and_hold_every_line_in_order() -> None:
    lines = [(number, str(number)) for number in range(1000)]
    batches = list(waiting(iter(lines), 7))
    assert [line for batch in batches for line in batch] == lines
    assert all(1 <= len(batch) <= 7 for batch in batches)
    assert list(waiting(iter(()), 7)) == []


def test_what_breaks_the_reading_is_raised_after_what_was_read() -> None:
    def broken():  # type: ignore[no-untyped-def]
        yield 1, "a"
        raise OSError("gone")

    batches = waiting(broken(), 7)
    assert next(batches) == [(1, "a")]
    with pytest.raises(OSError, match="gone"):
        next(batches)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [b"", b"end"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_mark_line_ends_and_no_end_change_no_sum(tmp_path: Path, mark: bytes, end: bytes, last: bytes) -> None:
    text = mark + b"1+2" + end + b"30+4" + (end if last else b"")
    (tmp_path / "sums").write_bytes(text)
    assert [line.strip() for line in lines_of(tmp_path / "sums")] == ["1+2", "30+4"]


@pytest.mark.parametrize("text", ["", "\n", "a", "a\n", "\n\nb", f"{'9' * 150_000}\n1+2\n{'가' * 70_000}\n\nend"])
def test_lines_longer_than_what_is_read_at_once_come_whole(tmp_path: Path, text: str) -> None:
    (tmp_path / "text").write_text(text, encoding="utf-8")
    with (tmp_path / "text").open("rb") as file:
        assert list(_read(file.fileno())) == text.removesuffix("\n").split("\n") * (text != "")


def test_wrong_bytes_are_reported_by_their_line_and_the_rest_is_solved_mark_and_line_ends_or_not() -> None:
    done = subprocess.run([*LOOPLM, "solve", "-"], input=b"\xef\xbb\xbf1+2\r\n\xff3+4\r\n5+5", capture_output=True)
    assert done.stdout.split() == [b"1+2=3", b"5+5=10"]
    assert b"line 2" in done.stderr
    assert b"Traceback" not in done.stderr
    assert done.returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoding", "command"),
    [
        *((encoding, ["--help"]) for encoding in ("cp949", "cp1252", "ascii", "utf-8")),
        ("cp949", ["spec", "show", "halting.confidence"]),
        ("cp949", ["plan", "first-light", "--profile", "h200"]),
    ],
)
def test_an_encoding_that_lacks_a_sign_never_stops_a_command(encoding: str, command: list[str]) -> None:
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([*LOOPLM, *command], cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr[-400:]
    assert done.stdout.decode(encoding)
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_lines() -> None:
    program = (
        "import sys, resource; from looplm.cli import main; code = main(['solve', '-']);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    peaks = []
    for count in (2_000, 20_000):
        sums = "".join(f"{number % 10}+{number % 7}\n" for number in range(count))
        done = subprocess.run([sys.executable, "-c", program], input=sums, capture_output=True, text=True)
        assert done.stdout.count("\n") == count
        peaks.append(int(done.stderr.split()[-1]))
    assert peaks[1] < 1.1 * peaks[0], "ten times the lines; a tenth is left for the allocator's chance"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_no_setting_of_git_changes_a_file_that_is_checked_by_its_hash() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    checked = subprocess.run(["git", "check-attr", "eol", "--", *files], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line.rsplit(": ", 1)[1] for line in checked.stdout.splitlines()} == {"lf"}
