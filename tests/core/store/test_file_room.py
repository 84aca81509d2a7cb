"""The file room: every call that removes or replaces stands there, and none of them touches what is not ours."""

from __future__ import annotations

import ast
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fo_onnx.errors import StoreError, StoreExistsError, StoreWriteError
from fo_onnx.store import files

ROOT = Path(__file__).parents[3]
REMOVING = {"unlink", "rmtree", "rmdir", "remove", "removedirs", "replace", "rename", "renames", "move", "truncate"}
NO_PATHS = {"nodes.replace"}
"""Calls of these names on something else: nodes of a TensorFlow graph."""
OF_PATHS = {"unlink", "rmdir", "rename", "rmtree", "removedirs", "renames"}


def removing_calls(code: str) -> list[tuple[int, str]]:
    """Calls that remove or replace a path: of the modules for it, and of paths by names that no other object has."""
    calls = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name, owner = node.func.attr, node.func.value
            of_module = isinstance(owner, ast.Name) and owner.id in {"os", "shutil"} and name in REMOVING
            # str.replace(old, new) takes two arguments, Path.replace(target) one.
            of_path = name in OF_PATHS or (name == "replace" and len(node.args) == 1 and not node.keywords)
            if of_module or of_path:
                calls.append((node.lineno, f"{ast.unparse(owner)}.{name}"))
        if isinstance(node, ast.ImportFrom) and node.module in {"os", "shutil"}:
            calls += [(node.lineno, f"from {node.module} import {a.name}") for a in node.names if a.name in REMOVING]
    return calls


def test_every_call_that_removes_or_replaces_stands_in_the_file_room():
    sources = [p for top in ("fo_onnx", "exporters") for p in (ROOT / top).rglob("*.py")]
    assert len(sources) > 100
    room = ROOT / "fo_onnx" / "store" / "files" / "operations.py"
    strays = {
        f"{path.relative_to(ROOT)}:{line} {call}"
        for path in sources
        if path != room
        for line, call in removing_calls(path.read_text(encoding="utf-8"))
        if call not in NO_PATHS
    }
    assert not strays
    assert len(removing_calls(room.read_text(encoding="utf-8"))) >= 4


@pytest.mark.parametrize(
    "code",
    ["path.unlink()", "os.remove(p)", "shutil.rmtree(p)", "os.replace(a, b)", "a.replace(b)", "a.rename(b)", "p.rmdir()",
     "from shutil import rmtree", "shutil.move(a, b)"],
)  # fmt: skip
def test_the_walk_sees_each_way_to_remove(code):
    assert removing_calls(code)


def test_the_walk_passes_over_texts_and_lists():
    assert not removing_calls("'a'.replace('b', 'c'); items.remove(1); replace(x, a=1); time.replace(hour=1)")


# ------------------------------------------------------------------------------------ each of them refuses what is foreign


def marked(folder: Path, kind: str = files.KIND_WORK) -> Path:
    folder.mkdir(parents=True)
    files.write_marker(folder, "fo-onnx.json", files.marker(kind), "marking")
    return folder


def tree_of(folder: Path) -> dict[str, tuple[str, bytes]]:
    """All that lies in a folder: what each entry is, and its content or where it points."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            found[str(path.relative_to(folder))] = ("link", os.readlink(path).encode())
        elif stat.S_ISDIR(mode):
            found[str(path.relative_to(folder))] = ("folder", b"")
        else:
            content = path.read_bytes() if stat.S_ISREG(mode) else b""
            found[str(path.relative_to(folder))] = ("file", content)
    return found


def foreign_folder(place: Path, kind: str) -> Path:
    """A folder at ``place/it`` that is not ours in one of many ways; what it must keep lies in it or behind it."""
    folder = place / "it"
    if kind == "a link to a folder of ours":
        marked(place / "elsewhere")
        (place / "elsewhere" / "assembled.tmp").write_text("precious")
        folder.symlink_to(place / "elsewhere")
        return folder
    folder.mkdir()
    (folder / "assembled.tmp").write_text("precious")
    (place / "marker").mkdir()
    files.write_marker(place / "marker", "fo-onnx.json", files.marker(files.KIND_WORK), "marking")
    own = (place / "marker" / "fo-onnx.json").read_text()
    text = {
        "no marker": None,
        "somebody's manifest": '{"name": "a web application"}',
        "another kind": own.replace("fo-onnx work folder", "fo-onnx something"),
        "no schema": own.replace('"schema": 1', '"schema": "1"'),
        "a list": f"[{own}]",
        "half a marker": own[:-5],
        "a marker nested too deep": "[" * 100_000,
    }.get(kind, own)
    if kind == "a marker that is a link":
        (folder / "fo-onnx.json").symlink_to(place / "marker" / "fo-onnx.json")
    elif text is not None:
        name = "manifest.json" if kind == "somebody's manifest" else "fo-onnx.json"
        (folder / name).write_text(text)
    return folder


NOT_OURS = [
    "no marker", "somebody's manifest", "another kind", "no schema", "a list", "half a marker", "a marker nested too deep",
    "a marker that is a link", "a link to a folder of ours",
]  # fmt: skip
ENTRIES = ["assembled.tmp", "data/part-000000000000.parquet"]


ACTS = {
    "remove_folder": lambda it, place: files.remove_folder(it, ENTRIES, "removing"),
    "remove_entries": lambda it, place: files.remove_entries(it, ENTRIES, "removing"),
    "move_folder": lambda it, place: files.move_folder(it, place / "moved", "moving"),
    "replace_folder by it": lambda it, place: files.replace_folder(it, marked(place / "ours"), ENTRIES, "replacing"),
    "replace_folder": lambda it, place: files.replace_folder(marked(place / "ours"), it, ENTRIES, "replacing"),
    "work_folder": lambda it, place: files.work_folder(
        it.rename(place / "x.partial").with_name("x"), "writing"
    ).__enter__(),
    # A path through a link to a folder of ours is a path into a folder of ours.
    "write over": lambda it, place: files.write_bytes(it / "assembled.tmp", b"other", "writing"),
    "write through": lambda it, place: files.write_bytes(
        place / "new", b"other", "writing", temporary=it / "assembled.tmp"
    ),
}
TRIED = [(act, kind) for act in ACTS for kind in NOT_OURS if "write" not in act or kind != NOT_OURS[-1]]


@pytest.mark.parametrize(("act", "kind"), TRIED)
def test_a_folder_that_is_not_ours_stays(act, kind, tmp_path):
    it = foreign_folder(tmp_path, kind)
    precious = sorted(p.read_text() for p in tmp_path.rglob("assembled.tmp"))
    before = tree_of(tmp_path)
    with pytest.raises(StoreExistsError):
        ACTS[act](it, tmp_path)
    assert sorted(p.read_text() for p in tmp_path.rglob("assembled.tmp")) == precious
    kept = {content for _, content in tree_of(tmp_path).values()}
    assert kept >= {content for _, content in before.values()}


FOREIGN_ENTRIES = {
    "a file": lambda folder, place: (folder / "notes.txt").write_text("precious"),
    "a folder": lambda folder, place: (folder / "photos").mkdir(),
    "a file in the folder of shards": lambda folder, place: (folder / "data" / "train.npy").write_text("precious"),
    "a folder in the folder of shards": lambda folder, place: (folder / "data" / "more").mkdir(),
    "a link under a name of ours": lambda folder, place: (folder / "assembled.tmp").symlink_to(place / "precious"),
    "a link among the shards": lambda folder, place: (folder / ENTRIES[1]).symlink_to(place / "precious"),
    "a folder under a name of ours": lambda folder, place: (folder / "assembled.tmp").mkdir(),
    "a pipe under a name of ours": lambda folder, place: os.mkfifo(folder / "assembled.tmp"),
    "a link in place of the shards": lambda folder, place: (
        (folder / "data").rmdir(),
        (folder / "data").symlink_to(place / "shards"),
    ),
}


@pytest.mark.parametrize("kind", FOREIGN_ENTRIES)
def test_what_is_foreign_in_a_folder_of_ours_stops_its_removal_and_is_named(kind, tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "part-000000000000.parquet").write_text("precious")
    folder = marked(tmp_path / "it")
    (folder / "data").mkdir()
    FOREIGN_ENTRIES[kind](folder, tmp_path)
    before = tree_of(tmp_path)
    name = next(n for n in ("notes.txt", "photos", "train.npy", "more", "part-0", "data", "assembled.tmp")
                if any(n in entry for entry in before if entry.startswith("it/") and (n != "data" or "shards" in kind)))  # fmt: skip
    with pytest.raises(StoreExistsError, match=rf"never removed: .*{name}"):
        files.remove_folder(folder, ENTRIES, "removing")
    assert tree_of(tmp_path) == before
    with pytest.raises(StoreExistsError, match="never removed"):
        files.replace_folder(marked(tmp_path / "new"), folder, ENTRIES, "replacing")
    assert {k: v for k, v in tree_of(tmp_path).items() if not k.startswith("new")} == before


@pytest.mark.parametrize("kind", ["a link under a name of ours", "a link among the shards", "a folder under a name of ours",
                                  "a pipe under a name of ours", "a link in place of the shards"])  # fmt: skip
def test_single_entries_are_only_removed_where_they_are_files(kind, tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "part-000000000000.parquet").write_text("precious")
    folder = marked(tmp_path / "it")
    (folder / "data").mkdir()
    FOREIGN_ENTRIES[kind](folder, tmp_path)
    before = tree_of(tmp_path)
    with pytest.raises(StoreExistsError):
        files.remove_entries(folder, ENTRIES, "removing")
    assert tree_of(tmp_path) == before


@pytest.mark.parametrize("kind", ["a file", "a link", "a dangling link", "a folder", "a pipe"])
def test_a_file_that_is_not_ours_is_never_replaced_or_removed(kind, tmp_path):
    path = tmp_path / "net.parquet"
    (tmp_path / "precious").write_text("ours")
    if kind == "a file":
        path.write_text("precious")
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / ("precious" if kind == "a link" else "nowhere"))

    def is_ours(file: Path) -> bool:
        return file.read_text() == "ours"

    mode = path.lstat().st_mode
    with files.temporary_folder() as folder:
        for replaces in (is_ours, None):
            with pytest.raises(StoreExistsError, match=r"net\.parquet"):
                files.write_bytes(path, b"new", "writing", temporary=folder / "assembled.tmp", replaces=replaces)
    with pytest.raises(StoreExistsError, match=r"net\.parquet"):
        files.remove_file(path, is_ours, "removing")
    assert path.lstat().st_mode == mode
    assert (tmp_path / "precious").read_text() == "ours"
    assert not (tmp_path / "nowhere").exists()


def test_a_file_of_ours_is_replaced_and_removed(tmp_path):
    path = tmp_path / "net.parquet"
    path.write_text("ours")
    with files.temporary_folder() as folder:
        files.write_bytes(
            path, b"new", "writing", temporary=folder / "a.tmp", replaces=lambda p: p.read_text() == "ours"
        )
    assert path.read_bytes() == b"new"
    files.remove_file(path, lambda p: True, "removing")
    files.remove_file(path, lambda p: True, "removing")
    assert not path.exists()


def test_a_journal_is_not_written_through_a_link(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "journal.jsonl").symlink_to(tmp_path / "precious")
    with pytest.raises(StoreWriteError, match="a link of that name"):
        files.write_at(tmp_path / "journal.jsonl", 0, b"", "writing the journal")
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("content", [b"pid 1", None])
def test_a_lock_of_somebody_else_is_left_alone(content, tmp_path):
    if content is None:
        (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    else:
        (tmp_path / ".lock").write_bytes(content)
    with pytest.raises(StoreExistsError, match="no lock of fo-onnx"):
        files.take_lock(tmp_path)
    assert not (tmp_path / "precious").exists()


# --------------------------------------------------------------------------------------- temporary folders and remains


def test_temporary_folders_are_private_and_go(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with files.temporary_folder() as folder:
        assert folder.parent == tmp_path
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "deep" / "er").mkdir(parents=True)
        (folder / "deep" / "er" / "weights").write_text("x")
        (folder / "link").symlink_to(tmp_path)
        with files.temporary_folder() as other:
            # The remains of killed processes go, a folder that is in use does not.
            assert folder.exists()
            assert other != folder
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_folder_that_was_killed_before_it_was_marked_goes(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name, content in {"fo-onnx-old": b'{"kind": ', "fo-onnx-new": b"", "fo-onnx-mine": b"precious"}.items():
        (tmp_path / name).mkdir(0o700)
        (tmp_path / name / ".lock").touch()
        (tmp_path / name / "fo-onnx.json.tmp").write_bytes(content)
        if name != "fo-onnx-new":
            os.utime(tmp_path / name, (1, 1))
    assert files.remove_temporary_remains() == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fo-onnx-mine", "fo-onnx-new"]


def test_a_file_that_is_given_up_late_leaves_the_one_in_its_place():
    with files.temporary_folder() as folder:
        first = files.OutputFile(folder / "a", "writing", temporary=folder / "a.tmp")
        (folder / "a.tmp").unlink()
        second = files.OutputFile(folder / "a", "writing", temporary=folder / "a.tmp")
        first.discard()
        second.write(b"rows")
        second.finish()
        assert (folder / "a").read_bytes() == b"rows"


def test_what_a_killed_process_left_in_the_temporary_directory_goes_with_the_next_one(tmp_path):
    code = (
        "import os\nfrom fo_onnx.store import files\nwith files.temporary_folder() as f:\n"
        "    (f / 'weights').write_text('x')\n    os._exit(9)\n"
    )
    env = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=env, check=False)
    (left,) = tmp_path.iterdir()
    foreign = tmp_path / "fo-onnx-of-the-user"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("precious")
    before = os.environ.get("TMPDIR")
    tempfile.tempdir = str(tmp_path)
    try:
        assert files.remove_temporary_remains() == 1
    finally:
        tempfile.tempdir = None
    assert os.environ.get("TMPDIR") == before
    assert not left.exists()
    assert (foreign / "thesis.tex").exists()


def test_a_missing_temporary_directory_is_an_error_that_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no"))
    with pytest.raises(StoreWriteError, match="temporary folder failed"), files.temporary_folder():
        pass


def test_what_a_killed_removal_left_is_removed_and_nothing_else(tmp_path):
    half = marked(tmp_path / ".fo-onnx-removed-0123456789abcdef")
    (half / "assembled.tmp").write_text("x")
    (tmp_path / ".fo-onnx-removed-empty").mkdir()
    foreign = tmp_path / ".fo-onnx-removed-notes"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("precious")
    mixed = marked(tmp_path / ".fo-onnx-removed-mixed")
    (mixed / "thesis.tex").write_text("precious")
    assert files.remove_remains(tmp_path, lambda _: ENTRIES) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == [".fo-onnx-removed-mixed", ".fo-onnx-removed-notes"]
    assert (mixed / "thesis.tex").exists()


def test_two_writers_of_one_file_learn_of_each_other(tmp_path):
    with files.work_folder(tmp_path / "x.npz", "writing"):
        with (
            pytest.raises(StoreError, match="another process is writing there"),
            files.work_folder(tmp_path / "x.npz", "writing"),
        ):
            pass
        assert (tmp_path / "x.npz.partial" / "fo-onnx.json").exists()
    assert list(tmp_path.iterdir()) == []
