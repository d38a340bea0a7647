"""A port that the processes cannot meet on is one line, before any of them starts."""

import socket

import pytest

from captionstew.errors import UserError
from captionstew.training.launch import launch


def test_a_port_in_use_names_the_flag(free_port):
    port = free_port()
    with socket.socket() as other:
        other.bind(("", port))
        other.listen()
        with pytest.raises(ValueError, match=f"--master-port {port} cannot be used .*in use"):
            launch(print, 2, port, "cpu")


@pytest.mark.parametrize("port", [70_000, -1])
def test_a_port_that_is_none(port):
    with pytest.raises(ValueError, match=f"--master-port {port} cannot be used"):
        launch(print, 2, port, "cpu")


def test_one_process_of_many_names_the_flag_too(free_port, monkeypatch):
    port = free_port()
    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", **place}.items():
        monkeypatch.setenv(name, value)
    with socket.socket() as other:
        other.bind(("", port))
        other.listen()
        with pytest.raises(UserError, match=f"localhost:{port} .*--master-port"):
            launch(print, 2, port, "cpu")
