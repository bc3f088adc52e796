"""A visitor's edits without a browser."""

import pytest

from lcg_lightning.errors import UserError
from lcg_lightning.methods.base import Method
from lcg_lightning.studio import session as sessions
from lcg_lightning.studio import sources
from lcg_lightning.studio.methods import PLAIN
from lcg_lightning.studio.resources import identity_network
from lcg_lightning.studio.session import Session


@pytest.fixture
def visitor(resources):
    return Session(resources, resources.worker.do(sources.row, resources, 3))


def move(visitor, **to):
    """Moves controls of a visitor's page: they are sent all at once, the others where they stand."""
    values = dict(zip(visitor.resources.schema.names, visitor.values(), strict=True))
    visitor.set(list((values | to).values()))


def opposite(visitor, name):
    return not dict(zip(visitor.resources.schema.names, visitor.values(), strict=True))[name]


def test_a_control_moved_again_at_once_is_one_edit_and_later_a_new_one(visitor):
    hat = opposite(visitor, "Hat")
    for age in (30.0, 40.0, 50.0):
        move(visitor, Age=age)
    assert visitor.texts == ("Age=50",)
    move(visitor, Hat=hat)
    move(visitor, Age=60.0)
    assert visitor.texts == ("Age=50", "Hat" if hat else "~Hat", "Age=60")
    visitor.undo()
    assert visitor.texts == ("Age=50", "Hat" if hat else "~Hat")
    visitor.undo()
    visitor.undo()
    visitor.undo()
    assert visitor.texts == ()


def test_a_control_put_back_asks_for_nothing(visitor):
    start = dict(zip(visitor.resources.schema.names, visitor.values(), strict=True))
    move(visitor, Hat=not start["Hat"])
    move(visitor, Age=70.0)
    move(visitor, Hat=start["Hat"])
    assert visitor.texts == ("Age=70",)
    visitor.undo()
    assert len(visitor.texts) == 2


def test_starting_over_can_be_undone_and_another_face_forgets(resources, visitor):
    move(visitor, Age=70.0)
    turn = visitor.turn
    visitor.reset()
    assert visitor.texts == ()
    visitor.undo()
    assert visitor.texts == ("Age=70",)
    visitor.start(resources.worker.do(sources.row, resources, 4))
    visitor.undo()
    assert visitor.texts == ()
    assert visitor.turn > turn


def test_another_face_has_results_of_its_own(resources, visitor):
    found = []
    for number in (3, 4, 3):
        visitor.start(resources.worker.do(sources.row, resources, number))
        move(visitor, Age=70.0)
        found.append(resources.worker.do(visitor.result, resources.main).last.picture)
    assert (found[0] != found[1]).any()
    assert (found[0] == found[2]).all()


def test_next_and_previous_go_on_from_the_row_last_seen(resources, visitor):
    assert (visitor.previous_row(), visitor.next_row()) == (2, 4)
    visitor.start(resources.worker.do(sources.drawn, resources, 1))
    assert (visitor.previous_row(), visitor.next_row()) == (3, 4)
    last = len(resources.faces.latents) - 1
    visitor.start(resources.worker.do(sources.row, resources, last))
    assert (visitor.previous_row(), visitor.next_row()) == (last - 1, 0)


def test_a_number_out_of_range_is_the_nearest_and_an_empty_field_asks_for_nothing_new(visitor):
    move(visitor, Age=90.0)
    assert visitor.texts == ("Age=80",)
    move(visitor, Age=None)
    assert visitor.texts == ("Age=80",)


def test_edits_and_kept_states_are_bounded(resources, visitor, monkeypatch):
    monkeypatch.setattr(sessions, "MOST_EDITS", 7)
    monkeypatch.setattr(sessions, "KEPT_STATES", 5)
    for k in range(sessions.MOST_EDITS):
        move(visitor, **{"Age" if k % 2 else "Yaw": 20.0 + k / 4})
    with pytest.raises(UserError, match="undo some"):
        move(visitor, Hat=opposite(visitor, "Hat"))
    assert len(visitor.texts) == sessions.MOST_EDITS
    result = resources.worker.do(visitor.result, resources.main)
    assert len(result.states) == sessions.MOST_EDITS
    assert len(visitor._states) == 5
    one_after_another = resources.methods[PLAIN]  # its last step needs all earlier ones
    assert len(resources.worker.do(visitor.result, one_after_another).states) == sessions.MOST_EDITS
    assert sum(map(len, visitor._states.values())) == sessions.MOST_EDITS


def test_only_the_last_step_is_computed_where_the_source_is_the_anchor(resources, visitor, monkeypatch):
    asked = []
    own = type(resources.main).edit
    monkeypatch.setattr(
        type(resources.main), "edit", lambda self, z, steps: asked.append(len(steps)) or own(self, z, steps)
    )
    for k in range(4):
        move(visitor, **{"Age" if k % 2 else "Yaw": 20.0 + k})
        resources.worker.do(visitor.result, resources.main)
    assert asked == [1, 1, 1, 1]


def test_a_face_that_is_not_there_and_a_latent_that_is_not_finite_are_refused_in_a_sentence(resources, visitor):
    with pytest.raises(UserError, match=r"no face 99999; .* 0 to"):
        sources.row(resources, 99999)

    class Broken(Method):
        name = "broken"

        def edit(self, source, steps):
            return [source / 0 for _ in steps]

        def prepare(self, store, space):
            pass

    move(visitor, Age=70.0)
    with pytest.raises(UserError, match="not finite"):
        resources.worker.do(visitor.result, Broken())


def test_faces_are_compared_by_a_zoo_generators_own_network_alone(tmp_path):
    assert identity_network("synthfaces", "cpu").image_size == 64
    file = tmp_path / "generator.pt2"  # of images that the zoo's network has never seen
    file.touch()
    assert identity_network(str(file), "cpu") is None
    assert identity_network({"path": str(file)}, "cpu") is None
