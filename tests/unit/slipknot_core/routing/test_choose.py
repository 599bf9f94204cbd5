"""The choice of a replica."""

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from slipknot_core.routing.choose import choose, sample

NOW_S = 100.0


@dataclass(eq=False)
class _Replica:
    ongoing: int
    max_ongoing_requests: int
    avoid_until_s: float
    node_id: str
    replica_id: str = ""
    model_ids: frozenset[str] = frozenset()

    @property
    def is_free(self) -> bool:
        return self.ongoing < self.max_ongoing_requests and self.avoid_until_s <= NOW_S


REPLICAS = st.lists(
    st.builds(
        _Replica,
        ongoing=st.integers(0, 4),
        max_ongoing_requests=st.integers(1, 4),
        avoid_until_s=st.sampled_from([0.0, NOW_S, NOW_S + 1]),
        node_id=st.sampled_from(["n1", "n2"]),
        replica_id=st.uuids().map(str),
        model_ids=st.frozensets(st.sampled_from(["m1", "m2", "m3"])),
    ),
    max_size=6,
)


class _Picks:
    """Picks as the test data say, and notes the outcome."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data
        self.picked: list[_Replica] = []

    def __call__(self, pool: Sequence[_Replica]) -> _Replica:
        assert pool
        picked = pool[self._data.draw(st.integers(0, len(pool) - 1))]
        self.picked.append(picked)
        return picked


@given(
    REPLICAS,
    st.sampled_from(["", "n1", "n2", "n3"]),
    st.sampled_from(["", "m1", "m4"]),
    st.sampled_from(["", "s1"]),
    st.data(),
)
def test_only_a_free_replica_is_chosen_and_one_whenever_there_is_one(
    replicas: list[_Replica], node_id: str, model_id: str, session_id: str, data: st.DataObject
) -> None:
    """No replica gets more than its bound, or is asked while it is avoided; and nobody waits without need,
    whatever is preferred.
    """
    chosen = choose(
        replicas,
        node_id=node_id,
        now_s=NOW_S,
        pick=_Picks(data),
        model_id=model_id,
        session_id=session_id,
    )
    if chosen is None:
        assert not any(replica.is_free for replica in replicas)
    else:
        assert chosen in replicas and chosen.is_free


@given(REPLICAS, st.sampled_from(["n1", "n2"]), st.data())
def test_the_own_node_comes_first(replicas: list[_Replica], node_id: str, data: st.DataObject) -> None:
    """As long as a replica there is free, the request does not travel."""
    chosen = choose(replicas, node_id=node_id, now_s=NOW_S, pick=_Picks(data))
    if any(replica.is_free and replica.node_id == node_id for replica in replicas):
        assert chosen is not None and chosen.node_id == node_id


@given(REPLICAS, st.data())
def test_of_two_the_less_busy_is_chosen(replicas: list[_Replica], data: st.DataObject) -> None:
    """Neither of the two that chance has named has fewer ongoing requests than the one chosen."""
    picks = _Picks(data)
    chosen = choose(replicas, node_id="", now_s=NOW_S, pick=picks)
    if picks.picked:
        assert len(picks.picked) == 2 and chosen in picks.picked
        assert chosen is not None and chosen.ongoing == min(replica.ongoing for replica in picks.picked)


def test_a_single_free_replica_needs_no_chance() -> None:
    """With one left there is nothing to pick."""

    def no_pick(_pool: Sequence[_Replica]) -> _Replica:
        raise AssertionError("nothing to choose between")

    free, full = _Replica(0, 1, 0.0, "n1"), _Replica(1, 1, 0.0, "n1")
    assert choose([full, free], node_id="n2", now_s=NOW_S, pick=no_pick) is free
    assert choose([full], node_id="", now_s=NOW_S, pick=no_pick) is None
    assert choose([], node_id="", now_s=NOW_S, pick=no_pick) is None


@given(REPLICAS, st.sampled_from(["", "n1"]), st.data())
def test_a_request_for_a_model_goes_where_it_is(
    replicas: list[_Replica], node_id: str, data: st.DataObject
) -> None:
    """To a free holder; without any holder to where there are fewest models; the node matters less."""
    chosen = choose(replicas, node_id=node_id, now_s=NOW_S, pick=_Picks(data), model_id="m1")
    free = [replica for replica in replicas if replica.is_free]
    if any("m1" in replica.model_ids for replica in free):
        assert chosen is not None and "m1" in chosen.model_ids
    elif free and not any("m1" in replica.model_ids for replica in replicas):
        assert chosen is not None
        assert len(chosen.model_ids) == min(len(replica.model_ids) for replica in free)


@given(REPLICAS, st.text(min_size=1, max_size=4), st.data())
def test_a_session_stays_where_it_is(replicas: list[_Replica], session_id: str, data: st.DataObject) -> None:
    """All callers find the same replica; only the sessions of one that leaves move."""

    def chosen(among: Sequence[_Replica]) -> _Replica | None:
        return choose(among, node_id="", now_s=NOW_S, pick=_Picks(data), session_id=session_id)

    for replica in replicas:
        replica.ongoing = 0
        replica.avoid_until_s = 0.0
    home = chosen(replicas)
    assert chosen(list(reversed(replicas))) is home
    if len(replicas) > 1:
        other = next(replica for replica in replicas if replica is not home)
        assert chosen([replica for replica in replicas if replica is not other]) is home


@given(REPLICAS.filter(bool), st.sets(st.integers(0, 5)), st.data())
def test_a_sample_is_free_and_fine(replicas: list[_Replica], ill: set[int], data: st.DataObject) -> None:
    """Of the last pair that was picked it is the one with less to do; without a free one there is none."""
    picks = _Picks(data)
    found = sample(
        replicas, now_s=NOW_S, pick=picks, is_fine=lambda replica: replicas.index(replica) not in ill
    )
    good = [r for r in picks.picked if r.is_free and replicas.index(r) not in ill]
    if found is None:
        assert good == []
        return
    assert found in good
    assert all(found.ongoing <= other.ongoing for other in good)
    assert set(map(id, good)) <= set(map(id, picks.picked[-2:]))
