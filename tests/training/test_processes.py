"""Two processes under torchrun train and measure as one does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from litedetr.batch.processes import Processes
from litedetr.cli import main
from litedetr.training.data import BatchStream, PhotoSet
from litedetr.training.log import read_log
from litedetr.training.targets import Targets
from tests.training.conftest import tiny_detector, write_set
from tests.training.two_processes import RECIPE, eval_command, train_a_little


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A data folder, half of whose pictures are empty; COCO's layout; a model; and a place for results."""
    root = tmp_path_factory.mktemp("processes")
    data, coco, model = root / "data", root / "coco", root / "model"
    write_set(data, "train", 10)
    content = json.loads((data / "train.json").read_text())
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] % 2]
    (data / "train.json").write_text(json.dumps(content))
    write_set(coco, "val", 5, seed=1)
    (coco / "annotations").mkdir()
    shutil.move(coco / "val.json", coco / "annotations" / "instances_val2017.json")
    shutil.move(coco / "val", coco / "val2017")
    tiny_detector(short_side=96, long_side=96, category_ids=(1, 7)).save_pretrained(model)
    return data, model, coco, root


@pytest.fixture(scope="module")
def two(folders):
    """What two processes did: (folder, their standard output)."""
    repository = Path(__file__).parents[2]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tests.training.two_processes", *map(str, folders)]
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return folders[-1], done.stdout


@pytest.mark.parametrize("count", [2, 3])
def test_the_parts_of_a_batch_are_the_whole(folders, count):
    photos = PhotoSet.open(folders[0])

    def batches(processes):
        stream = BatchStream(photos, RECIPE.augmentation, RECIPE.seed, processes=processes)
        for _ in range(RECIPE.steps):
            stream.request(96, 4)
        taken = [stream.take() for _ in range(RECIPE.steps)]
        stream.close()
        return taken

    whole = batches(Processes())
    parts = [batches(Processes(rank, count)) for rank in range(count)]
    for expected, *shares in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([share.images for share in shares]), expected.images)
        targets = Targets.join([share.targets for share in shares])
        assert torch.equal(targets.boxes, expected.targets.boxes)
        assert torch.equal(targets.labels, expected.targets.labels)
        assert torch.equal(targets.image, expected.targets.image)
        assert targets.counts == expected.targets.counts
        assert all(share.position == expected.position for share in shares)


def test_gradients_are_those_of_one_process(two, folders, tmp_path):
    expected, ours = train_a_little(folders[0], tmp_path / "run"), torch.load(two[0] / "steps.pt")
    assert len(ours) == len(expected) == RECIPE.steps
    for step, (wanted, got) in enumerate(zip(expected, ours, strict=True)):
        assert wanted["unused"] is None
        for name, gradient in wanted.items():
            if gradient is None:
                assert got[name] is None, name
                continue
            # all together they have a norm of 1; a bias before a normalisation has none but noise
            assert float((got[name] - gradient).norm()) <= 1e-3 * float(gradient.norm()) + 2e-5, (step, name)
    lines, wanted = (read_log(folder / "run" / "log.jsonl") for folder in (two[0], tmp_path))
    assert [line["step"] for line in lines] == [line["step"] for line in wanted] == [1, 2, 3]
    for line, other in zip(lines, wanted, strict=True):
        for name in ("loss", "norm", "loss_ce", "loss_giou_dn", "loss_bbox_dense"):
            assert line[name] == pytest.approx(other[name], rel=1e-3), name


def test_a_parameter_may_lack_a_gradient(two):
    for said in json.loads((two[0] / "sums.json").read_text()):
        assert said == {"good": True, "grads": [[2.0, 4.0], [3.0, 4.0], None], "bad": False}


def test_too_many_processes_are_refused(two):
    assert (two[0] / "refused.txt").read_text() == (
        "expected at least a picture for each of 2 processes, got a batch of 1; enlarge the batch in the recipe or start "
        "fewer processes"
    )


def test_two_measure_what_one_does(two, folders, tmp_path, capsys):
    _, model, coco, _ = folders
    assert main(eval_command(model, coco, tmp_path)) == 0
    alone, together = json.loads(capsys.readouterr().out), json.loads(two[1])
    assert together["images"] == alone["images"] == 5
    assert together["figures"] == alone["figures"]

    def lines(folder):
        found = [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
        return sorted(found, key=lambda line: line["image_id"])

    assert lines(two[0] / "eval") == lines(tmp_path)
    assert len(list((two[0] / "eval").glob("detections-*.jsonl"))) == 2
