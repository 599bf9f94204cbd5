"""Which node a replica goes to, and what is said when none has room."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipknot_controller.placement import Holding, NodeOffer, NoPlace, Place, Wanted, place, used_amounts
from slipknot_core.ids import DeploymentId
from slipknot_core.resources import PlacementStrategy, Resources, label_matches

MODEL = DeploymentId("app", "Model")
OTHER = DeploymentId("app", "Other")


def held(name: str, node: str, resources: Resources | None = None, **more: object) -> Holding:
    """Something that runs."""
    values = {"deployment": MODEL, "resources": resources or Resources()} | more
    return Holding(name, node_id=node, **values)  # type: ignore[arg-type]


def reason(wanted: Wanted, nodes: list[NodeOffer], holdings: list[Holding] | None = None) -> str:
    """Why there is no place."""
    found = place(wanted, nodes, holdings or [])
    assert isinstance(found, NoPlace)
    return found.reason


def test_replicas_spread_or_pack() -> None:
    """Spread looks for the fewest of the same deployment, pack for the fullest."""
    nodes = [NodeOffer(name, 4.0) for name in "abc"]
    holdings = [held("1", "a"), held("2", "b", deployment=OTHER), held("3", "b", deployment=OTHER)]
    assert place(Wanted(MODEL), nodes, holdings) == Place("c")
    assert place(Wanted(MODEL, strategy=PlacementStrategy.PACK), nodes, holdings) == Place("b")
    full = [*holdings, held("4", "b", deployment=OTHER), held("5", "b", deployment=OTHER)]
    assert place(Wanted(MODEL, strategy=PlacementStrategy.PACK), nodes, full) == Place("a")


def test_a_node_that_is_silent_is_the_last_choice() -> None:
    """But still one."""
    nodes = [NodeOffer("a", 9.0, answers=False), NodeOffer("b", 1.0)]
    assert place(Wanted(MODEL), nodes, []) == Place("b")
    assert place(Wanted(MODEL), nodes, [held("1", "b")]) == Place("a")


def test_gpus_are_devices() -> None:
    """Fractions share one, the fullest that has room; whole numbers are whole devices."""
    node = NodeOffer("a", math.inf, ("0", "1", "2"))
    half, two = Resources(num_gpus=0.5), Resources(num_gpus=2)
    assert place(Wanted(MODEL, half), [node], []) == Place("a", ("0",))
    holdings = [held("1", "a", half, gpu_ids=("1",))]
    assert place(Wanted(MODEL, half), [node], holdings) == Place("a", ("1",))
    assert place(Wanted(MODEL, two), [node], holdings) == Place("a", ("0", "2"))
    holdings = [held(str(i), "a", Resources(num_gpus=0.6), gpu_ids=(str(i),)) for i in range(3)]
    assert "no single GPU" in reason(Wanted(MODEL, half), [node], holdings)


def test_ten_tenths_are_one() -> None:
    """Fractions add up."""
    tenth = Resources(num_cpus=0.1)
    holdings = [held(str(i), "a", tenth) for i in range(9)]
    assert place(Wanted(MODEL, tenth), [NodeOffer("a", 1.0)], holdings) == Place("a")
    assert isinstance(
        place(Wanted(MODEL, tenth), [NodeOffer("a", 1.0)], [*holdings, held("9", "a", tenth)]), NoPlace
    )


def test_the_reason_names_what_is_missing() -> None:
    """For each node its own."""
    assert reason(Wanted(MODEL), []) == "no node has joined the cluster"
    nodes = [NodeOffer("a", 8.0, ("0",)), NodeOffer("b", 8.0)]
    assert reason(Wanted(MODEL, Resources(0, num_gpus=2)), nodes) == (
        "a replica needs 2 GPU; node a offers 1 GPU, node b offers 0 GPU"
    )
    busy = [held("1", "a", Resources(6.5))]
    assert reason(Wanted(MODEL, Resources(2)), nodes[:1], busy) == (
        "a replica needs 2 CPU; node a has 1.5 CPU of 8 free"
    )
    wanted = Wanted(MODEL, Resources(0, custom={"tpu": 1}, label_selector={"zone": "x"}))
    nodes = [NodeOffer("a", labels={"zone": "y"}), NodeOffer("b"), NodeOffer("c", labels={"zone": "x"})]
    assert reason(wanted, nodes) == (
        "a replica needs 1 tpu and zone=x; node a has zone=y, node b has no label zone, node c offers 0 tpu"
    )
    limited = Wanted(MODEL, max_replicas_per_node=1)
    assert "node a runs 1 of its replicas already" in reason(limited, nodes[:1], [held("1", "a")])
    assert "memory" in reason(
        Wanted(MODEL, Resources(memory_bytes=2**30)), [NodeOffer("a", memory_bytes=2**20)]
    )
    many = [NodeOffer(f"n{i}", 0.5) for i in range(9)]
    assert reason(Wanted(MODEL), many).endswith("4 more nodes have no room either")


def test_old_replicas_that_are_in_the_way() -> None:
    """The smallest set whose end makes room; none, if nothing would help."""
    gpu = Resources(0, num_gpus=1)
    nodes = [NodeOffer("a", 1, ("0", "1")), NodeOffer("b", 1, ("0", "1"))]
    holdings = [
        held("a1", "a", gpu, gpu_ids=("0",), version="v1"),
        held("a2", "a", gpu, gpu_ids=("1",), version="v1"),
        held("b1", "b", gpu, gpu_ids=("0",), version="v1"),
        held("b2", "b", gpu, gpu_ids=("1",), deployment=OTHER),
    ]
    found = place(Wanted(MODEL, gpu, version="v2"), nodes, holdings)
    assert isinstance(found, NoPlace) and found.blockers == ("a1",)
    found = place(Wanted(MODEL, Resources(0, num_gpus=2), version="v2"), nodes, holdings)
    assert isinstance(found, NoPlace) and found.blockers == ("a1", "a2")
    found = place(Wanted(MODEL, Resources(0, num_gpus=3), version="v2"), nodes, holdings)
    assert isinstance(found, NoPlace) and found.blockers == ()


@pytest.mark.parametrize(
    ("selector", "matches"),
    [("x", True), ("y", False), ("!x", False), ("!y", True), ("in(y, x)", True), ("!in(x,y)", False)],
)
def test_label_selectors(selector: str, matches: bool) -> None:
    """A value, a list, or neither."""
    assert label_matches({"zone": "x"}, "zone", selector) is matches
    assert label_matches({}, "zone", selector) is selector.startswith("!")


AMOUNTS = st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 1.0, 2.0, 3.0])
RESOURCES = st.builds(
    Resources,
    num_cpus=AMOUNTS,
    num_gpus=AMOUNTS,
    memory_bytes=st.integers(0, 100),
    custom=st.dictionaries(st.sampled_from(["x", "y"]), AMOUNTS),
    label_selector=st.dictionaries(st.just("zone"), st.sampled_from(["p", "!p", "in(p,q)"])),
)
NODES = st.lists(
    st.builds(
        NodeOffer,
        node_id=st.sampled_from("abcd"),
        num_cpus=st.sampled_from([0.5, 1.0, 4.0, math.inf]),
        gpu_ids=st.integers(0, 4).map(lambda n: tuple(map(str, range(n)))),
        memory_bytes=st.integers(0, 200),
        custom=st.dictionaries(st.sampled_from(["x", "y"]), AMOUNTS),
        labels=st.dictionaries(st.just("zone"), st.sampled_from("pq")),
        answers=st.booleans(),
    ),
    max_size=4,
    unique_by=lambda node: node.node_id,
)
WANTED = st.builds(
    Wanted,
    deployment=st.sampled_from([MODEL, OTHER]),
    resources=RESOURCES,
    strategy=st.sampled_from(PlacementStrategy),
    max_replicas_per_node=st.integers(0, 3),
)


@given(NODES, st.lists(WANTED, max_size=20))
def test_nothing_is_given_twice(nodes: list[NodeOffer], wishes: list[Wanted]) -> None:
    """Whatever is asked for in whatever order: no node and no device is over-committed, and who has no place
    is told why. The same question has the same answer.
    """
    holdings: list[Holding] = []
    for number, wanted in enumerate(wishes):
        found = place(wanted, nodes, holdings)
        assert place(wanted, list(reversed(nodes)), holdings) == found
        if isinstance(found, NoPlace):
            assert found.reason
            continue
        holdings.append(
            Holding(str(number), wanted.deployment, found.node_id, wanted.resources, found.gpu_ids)
        )
        node = next(n for n in nodes if n.node_id == found.node_id)
        here = [h for h in holdings if h.node_id == found.node_id]
        for name, selector in wanted.resources.label_selector.items():
            assert label_matches(node.labels, name, selector)
        if wanted.max_replicas_per_node:
            assert sum(h.deployment == wanted.deployment for h in here) <= wanted.max_replicas_per_node
        _check_not_over_committed(node, here)


def _check_not_over_committed(node: NodeOffer, here: list[Holding]) -> None:
    offered = node.amounts()
    for name, amount in used_amounts(here).items():
        assert amount <= offered.get(name, 0.0) + 1e-9
    for device in node.gpu_ids:
        shares = [min(1.0, h.resources.num_gpus) for h in here if device in h.gpu_ids]
        assert sum(shares) <= 1.0 + 1e-3
    for holding in here:
        count = holding.resources.num_gpus
        assert len(holding.gpu_ids) == (math.ceil(count) if count else 0)


def test_memory_is_told_in_whole_bytes() -> None:
    """Nobody reads 8.58993e+09."""
    wanted = Wanted(DeploymentId("app", "Big"), Resources(num_cpus=0, memory_bytes=8 * 2**30))
    nodes = [NodeOffer("a", memory_bytes=2**30), NodeOffer("b", memory_bytes=9 * 2**30)]
    held = Holding("r", DeploymentId("app", "Other"), "b", Resources(num_cpus=0, memory_bytes=2**31))
    found = place(wanted, nodes, [held])
    assert isinstance(found, NoPlace)
    assert found.reason == (
        "a replica needs 8,589,934,592 bytes of memory; node a offers 1,073,741,824 bytes of memory, "
        "node b has 7,516,192,768 bytes of memory of 9,663,676,416 free"
    )
