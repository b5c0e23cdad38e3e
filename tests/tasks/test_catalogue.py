import pytest

from prefenvs.tasks.catalogue import DOCS, FAMILIES, SIDE, draw, page


def test_the_page_of_tasks_is_up_to_date():
    pytest.importorskip("dm_control", reason="the page needs the extra dmc")
    written = (DOCS / "tasks.md").read_text(encoding="utf-8")
    assert page() == written, "make it anew: python -m prefenvs.tasks.catalogue"


def test_every_task_that_can_be_drawn_has_a_picture():
    names = {spec.name for _, _, specs in FAMILIES for spec in specs}
    assert {path.stem for path in (DOCS / "tasks").glob("*.png")} == names


@pytest.mark.parametrize("name", ["GridLedge", "GridDelivery"])
def test_a_picture_is_small_and_shows_something(name):
    image = draw(name)
    assert max(image.shape[:2]) <= SIDE
    assert image.shape[2] == 3
    assert image.std() > 10
