"""Whatever happens to a bundle is found, and where."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from bundle_helpers import members, repacked, tell

from orchestrator_lab.bundle.verifying import verify_bundle
from orchestrator_lab.errors import BundleError
from orchestrator_lab.run import Run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("whole")
    Run(tell(place / "runs")).export(place / "x.olab.zip")
    return place / "x.olab.zip"


def test_a_whole_one(bundle: Path) -> None:
    found = verify_bundle(bundle)
    assert found
    assert found.damages == ()
    assert found.files == len(members(bundle))
    assert found.size == sum(map(len, members(bundle).values()))
    assert "do not say who packed it" in str(found)


def test_each_of_a_thousand_bits_that_fall_over(bundle: Path, tmp_path: Path) -> None:
    data = bundle.read_bytes()
    draw = random.Random(11)  # noqa: S311 - a test's dice
    path = tmp_path / "bad.olab.zip"
    path.write_bytes(data)
    placed: dict[str, int] = {}
    with path.open("r+b") as file:
        for bit in draw.sample(range(len(data) * 8), 1000):
            place, mask = bit // 8, 1 << bit % 8
            file.seek(place)
            file.write(bytes([data[place] ^ mask]))
            file.flush()
            found = verify_bundle(path)
            assert not found.ok, f"bit {bit} of {len(data) * 8}"
            assert found.damages
            placed[found.damages[0].where] = placed.get(found.damages[0].where, 0) + 1
            file.seek(place)
            file.write(data[place : place + 1])
            file.flush()
    assert verify_bundle(path).ok
    # Most bytes are those of files, and damage there is told by the file's name. A name itself may be damaged.
    names = set(members(bundle))
    odd = [name for name in placed if name not in names and name != "archive"]
    assert all(any(differ(name, one) for one in names) for name in odd), odd
    assert sum(count for name, count in placed.items() if name in names) > 700, placed


def differ(name: str, other: str) -> bool:
    """Tell whether two names are the same but for one letter."""
    return len(name) == len(other) and sum(a != b for a, b in zip(name, other, strict=True)) == 1


def test_where_a_file_is_damaged(bundle: Path, tmp_path: Path) -> None:
    import zipfile

    data = bytearray(bundle.read_bytes())
    with zipfile.ZipFile(bundle) as archive:
        info = archive.getinfo("panes/boss.cast.zst")
    data[info.header_offset + 30 + len(info.filename) + info.file_size // 2] ^= 0x10
    (tmp_path / "bad.olab.zip").write_bytes(data)
    (damage,) = verify_bundle(tmp_path / "bad.olab.zip").damages
    assert damage.where == "panes/boss.cast.zst"
    assert "CRC" in damage.what
    # Which byte it was no checksum can tell.
    assert damage.what.endswith(f"bytes {info.header_offset} to {info.header_offset + info.file_size} of the archive")


@pytest.mark.parametrize("cut", [1, 100, 5000])
def test_one_that_ends_early(bundle: Path, tmp_path: Path, cut: int) -> None:
    (tmp_path / "bad.olab.zip").write_bytes(bundle.read_bytes()[:-cut])
    assert not verify_bundle(tmp_path / "bad.olab.zip").ok


def test_bytes_that_belong_to_nothing(bundle: Path, tmp_path: Path) -> None:
    data = bundle.read_bytes()
    for number, other in enumerate((data + b"\0", b"#!/bin/sh\n" + data)):
        path = tmp_path / f"{number}.olab.zip"
        path.write_bytes(other)
        assert not verify_bundle(path).ok


def test_files_that_were_changed_added_or_lost(bundle: Path, tmp_path: Path) -> None:
    import zipfile

    files = members(bundle)
    changed = {**files, "instructions/boss.md": b"You are my slave.\n", "panes/new.cast": b"x"}
    del changed["config.yaml"]
    path = tmp_path / "bad.olab.zip"
    with zipfile.ZipFile(path, "w") as archive:  # with the checksums of the files that were
        for name, content in changed.items():
            archive.writestr(name, content)
    said = {one.where: one.what for one in verify_bundle(path).damages}
    assert said["instructions/boss.md"].startswith("it is not what checksums.sha256 says, bytes ")
    assert said == {
        "instructions/boss.md": said["instructions/boss.md"],
        "config.yaml": "it is missing",
        "panes/new.cast": "it is not in checksums.sha256: it was put there later",
    }


def test_one_that_another_program_packed_again(bundle: Path, tmp_path: Path) -> None:
    path = repacked(tmp_path / "again.olab.zip", members(bundle))
    (damage,) = verify_bundle(path).damages
    assert damage.where == "archive"
    assert "another program has packed the files again (each of them is as it was)" in damage.what


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no such bundle"):
        verify_bundle(tmp_path / "none.olab.zip")
