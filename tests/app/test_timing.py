"""What `python -m litedetr bench --rows visitor` measures runs on the page's own engine."""

from app.timing import parts
from litedetr.bench.stages import noise


def test_every_part_of_an_answer_runs(engine):
    runs = parts(engine, noise((64, 96)))
    assert list(runs) == ["decode", "resize", "predict", "predict with trace", "picture (beside the model)", "answer", "run"]
    opened = runs["decode"]()
    assert opened.size == (64, 96)
    assert len(runs["predict"]()) == len(runs["predict with trace"]()) > 0
    assert runs["picture (beside the model)"]().startswith(b"\xff\xd8")
    around, looked = runs["answer"]()
    assert (around["height"], around["width"]) == (64, 96)
    assert "error" not in looked
    assert runs["run"]().size == (64, 96)
