"""What people say of a training, and the recipe that it makes."""

import pytest

import litedetr
from litedetr.cli import main
from litedetr.training.arguments import recipe_of
from litedetr.training.log import read_log
from tests.training.conftest import tiny_detector


def test_a_start_is_the_default_and_scratch_is_said(photo_folder, caplog):
    recipe = recipe_of(photo_folder)
    assert (recipe.start, recipe.measure_start, recipe.keep_best) == ("embedded", True, True)
    assert not caplog.records
    assert recipe.heads_first == 0  # it knows person and train
    assert (recipe.teacher, recipe.losses.matched) == ("start", 0.0)  # and suppresses doubles
    assert {"backbone", "selection.project"} <= set(recipe.freeze)
    assert recipe.hold
    assert [stage.size for stage in recipe.stages] == [512]  # as it looks at photos
    assert recipe_of(photo_folder, start="scratch").start == ""
    assert "RANDOM weights" in caplog.records[-1].getMessage()
    assert recipe_of(photo_folder, preset="dino-r50").preset == "dino-r50"


def test_lengths_and_sizes(photo_folder):
    steps = recipe_of(photo_folder, steps=7)
    assert (steps.steps, steps.seconds) == (7, 0)  # the recipe's own time does not cut it
    both = recipe_of(photo_folder, steps=7, seconds=60)
    assert (both.steps, both.seconds) == (7, 60)
    assert recipe_of(photo_folder, epochs=3, batch=4).steps == 8  # 30 pictures
    made = recipe_of(photo_folder, size=320, rate=1e-4, bf16=True, patience=3, evaluate_every=50)
    assert [(stage.size, stage.batch) for stage in made.stages] == [(320, 8)]
    assert (made.optimiser.rate, made.freeze[0]) == (1e-4, "backbone")
    assert (made.precision, made.patience, made.evaluate_seconds) == ("bf16", 3, 50)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"recipe": "dino-r50"}, "got the preset dino-r50: say --preset dino-r50"),
        ({"recipe": "finetune", "start": "scratch"}, "got --from scratch"),
        ({"start": "embedded", "preset": "dino-r50"}, "a start or a preset, got both"),
        ({"steps": 3, "epochs": 2}, "--epochs or --steps, got both"),
    ],
)
def test_what_excludes_each_other(photo_folder, arguments, said):
    with pytest.raises(ValueError, match=said):
        recipe_of(photo_folder, **arguments)


def test_an_unknown_argument_names_the_nearest(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--data", "x", "--out", "y", "--epoch-count", "3"])
    assert "unknown argument --epoch-count: did you mean --epochs?" in capsys.readouterr().err


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    tiny_detector(short_side=96, long_side=96, class_names=("person", "cat")).save_pretrained(folder)
    return folder


def test_from_python_with_the_start_measured_and_the_best_kept(photo_folder, start, tmp_path):
    steps = []
    made = recipe_of(photo_folder, start=str(start))
    assert made.heads_first > 0  # train is new to it
    assert (made.teacher, made.losses.matched) == ("", 1.0)  # it suppresses nothing: it is trained as DETRs are
    result = litedetr.train(
        photo_folder, tmp_path, str(start), steps=4, batch=2, size=64, evaluate_every=0.001, threads=1, callbacks=(steps.append,),
        progress=False,
    )  # fmt: skip
    assert steps == [1, 2, 3, 4]
    measured = [line for line in read_log(tmp_path / "log.jsonl") if "val" in line]
    assert measured[0]["step"] == 0
    assert measured[0]["val"]["AP"] == pytest.approx(result.at_start, abs=1e-4)
    folder, best = result.best
    assert best == pytest.approx(max(line["val"]["AP"] for line in measured), abs=1e-4)
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors"}
    assert (tmp_path / "sheet.png").is_file()
    assert (tmp_path / "curve.svg").is_file()


def test_patience_ends_it(photo_folder, start, tmp_path):
    options = {"batch": 2, "size": 64, "evaluate_every": 0.001, "threads": 1, "rate": 1e-12, "progress": False}
    result = litedetr.train(photo_folder, tmp_path, str(start), steps=50, patience=2, **options)
    assert result.steps < 50
