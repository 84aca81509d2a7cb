"""The contract of sources whose rows cannot all be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from source_checks import check_batch, check_failure, check_whole
from source_kinds import ENDING, FAILING, KINDS, Data, Room

from fo_onnx.errors import DataError


@pytest.mark.parametrize("name", FAILING)
class TestRowsThatFail:
    @pytest.fixture
    def room(self, name: str, tmp_path: Path) -> Room:
        return Room(KINDS[name], tmp_path)

    @pytest.mark.parametrize("on_error", ["skip", "record"])
    @pytest.mark.parametrize("bad", [(0,), (5,), (3, 4, 5), (22,), (0, 7, 8, 9, 10, 11, 22), tuple(range(23))])
    @pytest.mark.parametrize("size", [4, 30])
    def test_skipped_and_recorded(self, room: Room, on_error: str, bad: tuple[int, ...], size: int) -> None:
        data = Data.of(23, bad=bad)
        batches = check_whole(room.open(data, on_error=on_error), room, data, size)
        assert sum(len(b.bad) for b in batches) == len(bad)
        # What was raised stands first, or in the message that names the file; a table says what is missing where.
        assert all(re.search(r"(^|\()\w*Error\b|^it has no value", b.reason) for batch in batches for b in batch.bad)

    @pytest.mark.parametrize("start", [5, 6, 9])
    def test_skipped_from_a_later_start(self, room: Room, start: int) -> None:
        data = Data.of(23, bad=(2, 6, 8, 9))
        check_whole(room.open(data, on_error="skip"), room, data, 4, start)

    @pytest.mark.parametrize("bad", [1, 4, 6, 22])
    def test_failing_after_the_rows_before(self, room: Room, bad: int) -> None:
        data = Data.of(23, bad=(bad,))
        check_failure(room, data, bad, "fail")

    def test_failing_on_the_first_row(self, room: Room) -> None:
        source = room.open(Data.of(23, bad=(0,)))
        with pytest.raises(DataError, match=r"^row 0 \(id "):
            list(source.batches(4))
        with pytest.raises(DataError, match=r"^row 0 \(id "):
            source.peek(3)

    def test_peek_stops_before_the_bad_row_or_skips_it(self, room: Room) -> None:
        data = Data.of(23, bad=(2,))
        assert len(room.open(data).peek(5)) == 2
        batch = room.open(data, on_error="skip").peek(5)
        assert len(batch) == 5
        check_batch(batch, room, data)

    def test_fingerprint_counts_what_cannot_be_read(self, room: Room) -> None:
        good, bad = Data.of(12), Data.of(12, bad=(11,))
        prints = {room.open(d, on_error="skip").fingerprint() for d in (good, bad, bad)}
        assert len(prints) == 2


@pytest.mark.parametrize("name", ENDING)
@pytest.mark.parametrize("on_error", ["fail", "skip", "record"])
@pytest.mark.parametrize("bad", [1, 6, 8, 18])
def test_a_stream_that_fails_cannot_go_on(name: str, on_error: str, bad: int, tmp_path: Path) -> None:
    room = Room(KINDS[name], tmp_path)
    data = Data.of(23, bad=(bad,))
    check_failure(room, data, bad, on_error)
    with pytest.raises(DataError, match="cannot go on, whatever on_error= says"):
        list(room.open(data, on_error=on_error).batches(4))
