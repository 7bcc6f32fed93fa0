from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("agg")

import io
import itertools
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt

from orchestrator_lab.errors import ConfigError
from orchestrator_lab.plots import STATE_COLORS, STYLE, agent_colors, plot_timeline
from orchestrator_lab.schema import STATES, build_frame, empty_frame

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def at(second: float) -> str:
    return f"2026-11-23T06:00:{second:09.6f}Z"


def states_of(agents: int) -> pd.DataFrame:
    names = [f"agent{number}" for number in range(agents) for _ in STATES]
    count = len(STATES)
    return build_frame(
        "states",
        {
            "run_id": ["run_x"] * len(names),
            "agent": names,
            "state": list(STATES) * agents,
            "started_at": [at(second) for second in range(count)] * agents,
            "ended_at": [at(second + 1) for second in range(count)] * agents,
        },
    )


def messages_of(pairs: list[tuple[str, str]]) -> pd.DataFrame:
    return build_frame(
        "messages",
        {
            "run_id": ["run_x"] * len(pairs),
            "sender": [sender for sender, _ in pairs],
            "recipient": [recipient for _, recipient in pairs],
            "accepted_at": [at(number % 60 + 0.5) for number in range(len(pairs))],
        },
    )


def pixels(axes: plt.Axes) -> np.ndarray:
    axes.figure.canvas.draw()
    return np.asarray(axes.figure.canvas.buffer_rgba())[:, :, :3]


def shows(image: np.ndarray, color: str) -> int:
    wanted = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
    return int((np.abs(image.astype(int) - wanted).max(axis=2) <= 3).sum())


def test_every_state_is_drawn_in_its_colour() -> None:
    axes = plot_timeline(states_of(3))
    image = pixels(axes)
    for state, color in STATE_COLORS.items():
        if state != "unknown":  # white, so its hatch is what shows
            assert shows(image, color) > 200, state
    lane = [axes.transData.transform((second, 0)) for second in (7.1, 7.9)]
    (left, top), (right, _) = ((int(x), int(image.shape[0] - y)) for x, y in lane)
    assert (image[top - 5 : top + 5, left:right].max(axis=2) < 220).any()
    assert set(STATE_COLORS) == set(STATES)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == list(STATES)


def test_arrows_go_between_lanes_in_the_senders_colour() -> None:
    messages = messages_of([("user", "agent0"), ("agent0", "agent2"), ("agent2", "agent1")])
    axes = plot_timeline(states_of(3), messages)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["user", "agent0", "agent1", "agent2"]  # fmt: skip
    (lines,) = [item for item in axes.collections if item.__class__.__name__ == "LineCollection"]
    ends = [segment[:, 1].tolist() for segment in lines.get_segments()]
    assert [(start, round(stop)) for start, stop in ends] == [(0, 1), (1, 3), (3, 2)]
    assert [segment[0, 0] for segment in lines.get_segments()] == [0.5, 1.5, 2.5]
    image = pixels(axes)
    assert shows(image, agent_colors(["agent0", "agent1", "agent2"])["agent2"]) > 20


@pytest.mark.parametrize("agents", [1, 3, 30])
def test_lanes_do_not_touch_and_labels_do_not_overlap(agents: int) -> None:
    pairs = [(f"agent{number % agents}", "user") for number in range(200)]
    axes = plot_timeline(states_of(agents), messages_of(pairs))
    axes.figure.canvas.draw()
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    boxes.sort(key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 + 0.5 for low, high in itertools.pairwise(boxes))
    figure = axes.figure.bbox
    legend = axes.get_legend().get_window_extent()
    assert figure.x0 <= legend.x0
    assert legend.x1 <= figure.x1
    assert axes.get_xlabel() == "time (s)"


def test_nothing_global_changes_and_the_given_axes_are_used() -> None:
    before = dict(mpl.rcParams)
    _, axes = plt.subplots()
    count = len(plt.get_fignums())
    assert plot_timeline(states_of(2), ax=axes) is axes
    assert len(plt.get_fignums()) == count
    plot_timeline(states_of(2))
    assert dict(mpl.rcParams) == before
    assert "figure.dpi" in mpl.rc_params_from_file(STYLE, use_default_template=False)


@pytest.mark.parametrize("states", [empty_frame("states"), states_of(1).iloc[:1]])
def test_little_or_nothing_can_be_drawn(states: pd.DataFrame) -> None:
    axes = plot_timeline(states, empty_frame("messages"))
    pixels(axes)


def test_interval_that_lasts_is_drawn_to_the_last_instant_known() -> None:
    states = states_of(1).iloc[:3].copy()
    states["ended_at"] = states["ended_at"].where([True, True, False])
    axes = plot_timeline(states, messages_of([("user", "agent0")] * 10))
    (busy,) = [item for item in axes.collections if item.get_label() == "busy"]
    assert busy.get_paths()[0].vertices[:, 0].tolist() == [2.0, 9.5, 9.5, 2.0, 2.0]


def test_messages_never_accepted_have_no_arrow() -> None:
    messages = messages_of([("agent0", "agent1")])
    messages["accepted_at"] = pd.Series([pd.NaT], dtype=messages["accepted_at"].dtype)
    drawn = plot_timeline(states_of(2), messages).collections
    assert [item.get_label() for item in drawn] == list(STATES)  # states alone


def test_tables_that_cannot_be_drawn_are_named() -> None:
    with pytest.raises(ConfigError, match="lacks started_at"):
        plot_timeline(states_of(1)[["agent", "state", "ended_at"]])
    two = pd.concat([states_of(1), states_of(1).assign(run_id="run_y")])
    with pytest.raises(ConfigError, match="holds 2 runs"):
        plot_timeline(two)


def test_colours_are_stable_and_distinct() -> None:
    names = [f"a{number}" for number in range(30)]
    colors = agent_colors(["user", *names])
    assert len(set(colors.values())) == 31
    assert agent_colors(names)["a3"] == colors["a3"]
    assert all(len(color) == 7 and int(color[1:], 16) >= 0 for color in colors.values())


def test_the_first_figure_of_a_notebook_leaves_it_interactive(monkeypatch: pytest.MonkeyPatch) -> None:
    """The inline backend says so when it is loaded, by the first figure; without it no later cell shows a figure."""
    make = plt.subplots

    def first(*args: object, **kwargs: object) -> object:
        plt.ion()
        return make(*args, **kwargs)

    monkeypatch.setattr(plt, "subplots", first)
    assert not plt.isinteractive()
    try:
        plot_timeline(states_of(2))
        assert plt.isinteractive()
    finally:
        plt.ioff()


def test_a_pdf_in_the_labs_style_has_no_fonts_that_journals_refuse() -> None:
    def pdf() -> bytes:
        file = io.BytesIO()
        plot_timeline(states_of(2)).figure.savefig(file, format="pdf")
        return file.getvalue()

    assert b"/Type3" in pdf()
    with plt.style.context(STYLE):
        assert b"/Type3" not in pdf()
