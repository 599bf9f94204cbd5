"""Many updates in a row under load of all kinds, one of which fails: no client notices."""

from collections.abc import Iterator

import pytest

from slipknot import serve
from tests.support.cluster_status import application, wait_until
from tests.support.update_load import UpdateLoad, update

UPDATES = 6
FAILING = 3


@pytest.fixture
def url() -> Iterator[str]:
    """An embedded cluster of its own."""
    serve.start(http_options={"port": 0})
    try:
        yield serve.http_url()
    finally:
        serve.shutdown()


@pytest.mark.timeout(120)
def test_updates_in_a_row_fail_no_request(url: str) -> None:
    """Requests and streams finish, long WebSockets hear that their replica goes."""
    with UpdateLoad(url, update(0, replicas=2)) as load:
        load.wait_for_more(5)
        for number in range(1, UPDATES + 1):
            if number == FAILING:
                with pytest.raises(RuntimeError, match=f"version {number} cannot start"):
                    update(number, replicas=2, fails=True)
                wait_until(lambda: application().message.startswith("Rolled back"))
            else:
                update(number, replicas=2)
            load.wait_for_more(5)
    assert load.failures == []
    done = load.done
    assert all(done.get(kind, 0) for kind in ("plain", "streams", "calls", "short sockets")), done
    assert done.get("long sockets that got their notice", 0) + done.get("long sockets", 0), done
