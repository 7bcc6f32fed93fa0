"""A real pane, a real endpoint and a real hook receiver for the programs that we ship."""

# ruff: noqa: ANN001, ANN201
from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from chat_helpers import Chat, Endpoint, Receiver


@pytest.fixture
def short_folder():
    """A folder whose path is short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="olp-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def endpoint():
    with Endpoint() as server:
        yield server


@pytest.fixture
def receiver():
    with Receiver() as server:
        yield server


@pytest.fixture
def chat(short_folder, endpoint, receiver):
    chat = Chat(short_folder, endpoint, receiver)
    yield chat
    if chat.pane is not None:
        chat.pane.close()
