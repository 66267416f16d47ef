"""Many photos: batches, kills, broken files, one process and two."""

import io
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from litedetr.batch import detect
from litedetr.batch.detect import BatchReport, detect_many, photo_files, printable, to_json
from litedetr.batch.processes import ALONE
from litedetr.batch.resume import alone
from litedetr.cli import main
from litedetr.image import open_small
from tests import one_of_two

SIZES = [(200, 150), (150, 200), (90, 90), (640, 40)]


@pytest.fixture(scope="module")
def folder(photo, tmp_path_factory):
    """Twenty photos of four sizes in two folders, and three files that are none."""
    root = tmp_path_factory.mktemp("photos")
    (root / "more.jpg").mkdir()  # a folder with a picture's name
    for number in range(20):
        picture = Image.fromarray(np.roll(photo, 9 * number, axis=1)).resize(SIZES[number % 4])
        picture.save((root / "more.jpg" if number % 3 else root) / f"{number:02}.{'png' if number % 5 else 'jpg'}")
    (root / "empty.jpg").write_bytes(b"")
    (root / "web.png").write_text("<html><script>alert(1)</script>")
    (root / "cut.jpg").write_bytes((root / "00.jpg").read_bytes()[:900])
    (root / "notes.txt").write_text("not looked at")
    return root


@pytest.fixture(scope="module")
def model(detector, tmp_path_factory):
    where = tmp_path_factory.mktemp("model")
    detector.save_pretrained(where)
    return where


def command(folder, model, out, *more) -> list[str]:
    return ["detect", str(folder), "--model", str(model), "--out", str(out), "--batch", "3", "--device", "cpu",
            "--threshold", "0.3", *more]  # fmt: skip


def read(out) -> dict[str, dict]:
    """File -> its line; every file has one."""
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len({line["file"] for line in lines}) == len(lines)
    return {line["file"]: line for line in lines}


@pytest.fixture(scope="module")
def whole(folder, model, tmp_path_factory):
    """What one run that nobody disturbs finds."""
    out = tmp_path_factory.mktemp("whole") / "found.jsonl"
    assert main(command(folder, model, out)) == 1
    return out


def same(one: dict[str, dict], other: dict[str, dict]) -> None:
    """The same up to the noise of other batches."""
    assert one.keys() == other.keys()
    for file, line in one.items():
        theirs = other[file]
        assert line.get("error") == theirs.get("error")
        found, wanted = (
            np.array([[d["label"], 100 * d["score"], *d["box"]] for d in each.get("detections", [])]) for each in (line, theirs)
        )
        assert found.shape == wanted.shape
        if len(found):  # equal scores change places
            apart = np.abs(found[:, None] - wanted[None]).max(-1)
            assert apart.min(0).max() < 0.1
            assert apart.min(1).max() < 0.1


def test_every_file_has_a_line(whole, folder, detector):
    lines = read(whole)
    assert set(lines) == set(map(str, photo_files([folder])))
    assert len(lines) == 23
    assert {file.rsplit("/")[-1] for file, line in lines.items() if "error" in line} == {"empty.jpg", "web.png", "cut.jpg"}
    assert sum(len(line.get("detections", [])) for line in lines.values()) > 20
    for file, line in lines.items():
        if "error" not in line:
            expected = detector.predict(file, 0.3).to_dict()
            same({file: line}, {file: {"file": file, **expected}})
    assert sorted(path.name for path in whole.parent.iterdir()) == ["found.jsonl", "found.jsonl.about"]


def test_batches_beside_each_other_find_the_same(whole, folder, detector, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        report = detect_many(
            detector.optimize("float32"), photo_files([folder]), tmp_path / "two.jsonl", about={}, threshold=0.3, batch=3,
            report=lambda text: None,
        )  # fmt: skip
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert len(report.refused) == 3
    same(read(tmp_path / "two.jsonl"), read(whole))


def test_killed_in_a_line_it_goes_on(whole, folder, model, tmp_path, capsys, monkeypatch):
    out = tmp_path / "found.jsonl"
    lines = whole.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:9]) + lines[9][:30])
    (tmp_path / "found.jsonl.about").write_bytes((whole.parent / "found.jsonl.about").read_bytes())
    # left behind by two other processes of the killed run: one line that was brought over already, two that were not
    (tmp_path / "found.jsonl.part-1").write_bytes(lines[3] + lines[11] + lines[12][:-1])
    (tmp_path / "found.jsonl.part-2").write_bytes(lines[14])
    opened = []
    monkeypatch.setattr(detect.PhotoProcess, "open", lambda self, file: opened.append(str(file)) or open_small(file))
    assert main(command(folder, model, out)) == 1
    same(read(out), read(whole))
    refused = {file for file, line in read(whole).items() if "error" in line}
    done = {json.loads(lines[index])["file"] for index in (*range(9), 11, 14)} - refused
    assert sorted(opened) == sorted(read(whole).keys() - done)
    assert capsys.readouterr().out.startswith(f"23 photos, {len(done)} of them before in ")
    assert not list(tmp_path.glob("*.part-*"))

    opened.clear()  # a finished one tries again what could not be used, and that alone
    assert main(command(folder, model, out)) == 1
    assert sorted(opened) == sorted(refused)
    same(read(out), read(whole))
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("23 photos, 20 of them before in ")
    assert said[0].endswith("; 3 could not be used")
    assert [line.split(": This")[0].rsplit("/")[-1] for line in said[1:]] == ["cut.jpg", "empty.jpg", "web.png"]


def test_two_processes_one_of_them_killed(whole, folder, model, tmp_path):
    """The second one dies in the middle of a line; the first waits for it in vain; the same command again ends the work."""
    out = tmp_path / "found.jsonl"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["litedetr.fast", "litedetr.batch.detect", "tests.one_of_two"])

    def together(killed_after: int | None) -> list[int | None]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        arguments = command(folder, model, out)
        pair = [one_of_two.start(context, rank, port, arguments, killed_after if rank else None) for rank in (0, 1)]
        pair[1].join(120)
        pair[0].join(0.5 if killed_after is not None else 120)
        if pair[0].is_alive():
            pair[0].kill()  # as torchrun would
            pair[0].join(60)
        return [process.exitcode for process in pair]

    assert together(killed_after=2)[1] == -signal.SIGKILL
    half = [path.read_bytes() for path in (out, tmp_path / "found.jsonl.part-1")]
    assert 0 < half[1].count(b"\n") < 12
    assert not half[1].endswith(b"\n")
    assert together(None) == [1, 1]
    same(read(out), read(whole))
    for content in half:  # what was there is there still
        assert {json.loads(line)["file"] for line in content.splitlines()[:-1]} <= read(out).keys()
    assert not list(tmp_path.glob("*.part-*"))


def test_one_writer_at_a_time_and_no_line_twice(whole, folder, model, tmp_path, capsys):
    out = tmp_path / "found.jsonl"
    with alone(out, ALONE):
        there = subprocess.run(
            [sys.executable, "-m", "litedetr", *command(folder, model, out)], capture_output=True, text=True, timeout=120
        )
        assert there.returncode == 2
        assert f"expected nobody else to write {out}, and another run does: wait for it, or give another --out" in there.stderr
        assert not out.exists()
    lines = whole.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join([*lines, *lines[3:9]]))
    (tmp_path / "found.jsonl.about").write_bytes((whole.parent / "found.jsonl.about").read_bytes())
    assert main(command(folder, model, out)) == 1
    same(read(out), read(whole))
    assert len(out.read_bytes().splitlines()) == len(lines)
    assert not (tmp_path / "found.jsonl.lock").exists()
    capsys.readouterr()


def test_another_threshold_or_file_is_refused(whole, folder, model, tmp_path, capsys):
    out = tmp_path / "found.jsonl"
    for path in whole.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    other = command(folder / "00.jpg", model, out)
    other[other.index("0.3")] = "0.6"
    assert main(other) == 2
    assert capsys.readouterr().err == (
        f"litedetr: expected the run that {out} was begun with, got another one: threshold 0.3, now 0.6. Give another --out, or "
        "--restart to do it all again\n"
    )
    assert main([*other, "--restart"]) == 0
    assert list(read(out)) == [str(folder / "00.jpg")]
    foreign = tmp_path / "notes.jsonl"
    foreign.write_text("mine\n")
    assert main(command(folder, model, foreign)) == 2
    assert foreign.read_text() == "mine\n"
    assert "got another one: give another --out, or --restart" in capsys.readouterr().err
    (tmp_path / "found.jsonl").write_text("{}\nmine\n")
    assert main([*other]) == 2
    assert "expected a line with a file's name" in capsys.readouterr().err


def test_names_that_no_encoding_likes(detector, photo, tmp_path):
    names = [os.fsdecode(b"caf\xe9.png"), "사진.png", "two\nlines.png", "\x1b[31mred.png"]
    for name in names:
        Image.fromarray(photo).save(tmp_path / name)
    out = tmp_path / "out" / "found.jsonl"
    report = detect_many(detector, photo_files([tmp_path]), out, about={})
    assert (report.photos, report.refused) == (4, {})
    assert set(read(out)) == {str(tmp_path / name) for name in names}
    assert "사진" in out.read_text()
    assert detect_many(detector, photo_files([tmp_path]), out, about={}).known == 4
    assert printable(names[3]) == r"'\x1b[31mred.png'"
    assert json.loads(to_json({"file": names[0]})) == {"file": names[0]}


def test_what_failed_once_is_tried_again(detector, photo, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "found.jsonl"
    photos.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(photo).save(photos / name)
    whole = (photos / "b.png").read_bytes()
    (photos / "b.png").write_bytes(whole[:99])  # while it was copied, say
    assert list(detect_many(detector, photo_files([photos]), out, about={}).refused) == [str(photos / "b.png")]
    report = detect_many(detector, photo_files([photos / "a.png"]), out, about={})
    assert (report.known, report.refused) == (1, {})
    assert "error" in read(out)[str(photos / "b.png")]  # nobody asked for it
    (photos / "b.png").write_bytes(whole)
    report = detect_many(detector, photo_files([photos]), out, about={})
    assert (report.known, report.refused) == (2, {})
    one, other = (read(out)[str(photos / name)] for name in ("a.png", "b.png"))
    same({"": one}, {"": other})


def test_linked_folders_are_entered_once(photo, tmp_path):
    root, other = tmp_path / "root", tmp_path / "other"
    (other / "deeper").mkdir(parents=True)
    root.mkdir()
    Image.fromarray(photo).save(other / "deeper" / "a.png")
    (root / "link").symlink_to(other)
    (root / "once more").symlink_to(other)
    (other / "circle").symlink_to(root)
    (root / "zero.png").symlink_to("/dev/zero")  # never ends
    (root / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(root / "pipe.png")  # nobody writes to it
    assert photo_files([root]) == [root / "link" / "deeper" / "a.png"]


def test_a_console_that_cannot_take_a_name(model, photo, tmp_path, monkeypatch):
    for name in ("a.png", "사진.png", "😀.png"):
        Image.fromarray(photo).save(tmp_path / name)
    command = ["detect", str(tmp_path), "--model", str(model), "--device", "cpu"]
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252"))
    assert main(command) == 0
    assert {Path(json.loads(line)["file"]).name for line in written.getvalue().splitlines()} == {"a.png", "사진.png", "😀.png"}


def test_a_reader_that_has_gone(model, photo, tmp_path):
    Image.fromarray(photo).save(tmp_path / "a.png")
    command = [sys.executable, "-m", "litedetr", "detect", str(tmp_path), "--model", str(model), "--device", "cpu"]
    reader, writer = os.pipe()
    os.close(reader)  # `| head -1` has gone
    with os.fdopen(writer, "wb") as gone:
        run = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, timeout=120)
    assert (run.returncode, run.stderr) == (0, b"")


def test_nothing_at_all(detector, tmp_path):
    report = detect_many(detector, [], tmp_path / "found.jsonl", about={})
    assert report == BatchReport(0, 0, report.seconds, {})
    assert report.summary() == "0 photos; 0 could not be used"


def test_without_a_file_there_is_one_process(model, photo, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["detect", str(tmp_path), "--model", str(model)]) == 2
    assert capsys.readouterr().err.startswith("litedetr: expected --out where torchrun starts several processes")
    assert main(["detect", str(tmp_path), "--batch", "0"]) == 2
