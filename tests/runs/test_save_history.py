"""Where the saves of a run were: compact, exact, and right after going back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.runs.save_history import Place, Trail, follow, places

some_places = st.lists(
    st.builds(Place, st.integers(0, 4), st.integers(0, 4), st.integers(0, 40)), max_size=30
)


@given(some_places)
def test_a_trail_gives_back_what_it_followed(visited):
    """Each place comes back in order, but for those behind a place that was gone back to."""
    trail = ()
    expected: list[Place] = []
    for place in visited:
        trail = follow(trail, place)
        expected = [*(other for other in expected if other < place), place]
    assert list(places(trail)) == expected


def test_regular_saves_take_one_entry():
    """Ten thousand epochs do not make a record longer than one does."""
    trail = ()
    for epoch in range(1, 10_001):
        trail = follow(trail, Place(epoch, 0, 469 * epoch))
    assert trail == ((1, 0, 469, 9_999, 1, 0, 469),)
    assert sum(1 for _ in places(trail)) == 10_000


def test_a_claimed_number_of_saves_is_not_believed():
    """A file that claims a billion saves costs what its reader asked for."""
    assert len(list(places([(1, 0, 1, 10**9, 1, 0, 1)], most=1_000))) == 1_000


def test_a_writer_goes_on_with_what_its_files_say_of_the_same_run():
    """After a restart the trail is that of the newest file; another run begins anew."""
    before = [
        TrainingProgress(2, step=8, run_id="a", saved_at=2.0, saves=((1, 0, 4, 1, 1, 0, 4),)),
        TrainingProgress(9, step=36, run_id="b", saved_at=9.0, saves=((9, 0, 36),)),
    ]
    trail = Trail()
    third = trail.extend(TrainingProgress(3, step=12, run_id="a"), lambda: before)
    assert third.saves == ((1, 0, 4, 2, 1, 0, 4),)
    fourth = trail.extend(TrainingProgress(4, step=16, run_id="a"), lambda: 1 / 0)
    assert [place.epochs for place in places(fourth.saves)] == [1, 2, 3, 4]
    other = trail.extend(TrainingProgress(1, step=4, run_id="c"), lambda: before)
    assert other.saves == ((1, 0, 4),)
