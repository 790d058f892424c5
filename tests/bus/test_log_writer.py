from __future__ import annotations

import stat
from pathlib import Path

from structlog.testing import capture_logs

from bus.log_writer import LogWriter


async def test_lines_come_to_their_files_in_order(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "logs")
    for number in range(100):
        writer.add(Path("a/b.jsonl") if number % 2 else Path("c.jsonl"), b"%d\n" % number)
    await writer.close()
    assert (tmp_path / "logs/c.jsonl").read_text().split() == [str(n) for n in range(0, 100, 2)]
    assert (tmp_path / "logs/a/b.jsonl").read_text().split() == [str(n) for n in range(1, 100, 2)]
    assert stat.S_IMODE((tmp_path / "logs/a/b.jsonl").stat().st_mode) == 0o600
    (tmp_path / "logs/c.jsonl").rename(tmp_path / "moved")
    writer.add(Path("c.jsonl"), b"again\n")
    await writer.close()
    assert (tmp_path / "logs/c.jsonl").read_text() == "again\n"


async def test_more_than_may_wait_is_left_out_and_counted(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, most_waiting=10)
    with capture_logs() as logs:
        for line in (b"1234\n", b"6789\n", b"lost\n", b"too\n"):
            writer.add(Path("f"), line)
        await writer.close()
        assert [entry["lines"] for entry in logs] == [2]
        writer.add(Path("f"), b"room\n")
        await writer.close()
    assert (tmp_path / "f").read_bytes() == b"1234\n6789\nroom\n"


async def test_a_file_that_cannot_be_written_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    writer = LogWriter(tmp_path)
    with capture_logs() as logs:
        writer.add(Path("folder"), b"x\n")
        writer.add(Path("file"), b"y\n")
        await writer.close()
    assert [entry["lines"] for entry in logs] == [1]
    assert (tmp_path / "file").read_bytes() == b"y\n"
