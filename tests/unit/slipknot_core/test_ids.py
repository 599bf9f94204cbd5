"""Identifiers."""

import os
import random
import uuid

from hypothesis import given
from hypothesis import strategies as st

from slipknot_core.ids import DeploymentId, new_replica_id, new_request_id, posix_safe, short_id


def test_a_request_id_is_a_random_uuid4() -> None:
    """Request ids are version 4 UUIDs in their usual text form, and differ."""
    ids = {new_request_id() for _ in range(100)}
    assert len(ids) == 100
    for request_id in ids:
        parsed = uuid.UUID(request_id)
        assert parsed.version == 4 and parsed.variant == uuid.RFC_4122
        assert str(parsed) == request_id


def test_a_forked_process_makes_request_ids_of_its_own() -> None:
    """Replicas are forked: parent and child must not go on with the same numbers."""
    new_request_id()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, new_request_id().encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        of_child = pipe.read()
    os.waitpid(pid, 0)
    assert uuid.UUID(of_child) != uuid.UUID(new_request_id())


def test_request_ids_do_not_depend_on_the_seed_of_user_code() -> None:
    """Whoever seeds `random` for an experiment gets no request id twice."""
    ids = set()
    for _ in range(2):
        random.seed(1)
        ids.add(new_request_id())
    assert len(ids) == 2


def test_a_replica_id_tells_application_and_deployment() -> None:
    """Both names stand in the id, before a suffix of its own."""
    first, second = new_replica_id("shop", "Model"), new_replica_id("shop", "Model")
    assert first != second
    assert first.rpartition("#")[0] == "shop#Model"


def test_a_deployment_id_reads_as_a_path() -> None:
    """In messages a deployment is named with its application."""
    assert str(DeploymentId("shop", "Model")) == "shop/Model"


@given(st.integers(0, 40))
def test_short_ids_have_the_length_asked_for(length: int) -> None:
    """Short ids consist of lower-case letters and digits."""
    made = short_id(length)
    assert len(made) == length
    assert made == "" or (made.isalnum() and made.isascii() and made == made.lower())


@given(st.text())
def test_a_posix_safe_name_is_one_component_of_a_path(name: str) -> None:
    """Nothing in a name leads out of its directory, and harmless characters stay."""
    safe = posix_safe(name)
    assert len(safe) == len(name)
    assert safe.isascii() and "/" not in safe and "\0" not in safe
    assert posix_safe(safe) == safe
