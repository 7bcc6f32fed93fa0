"""The pictures beside the timeline: what each artist says, at little, at much, and at nothing known.

Assertions look at artists and not at reference pictures: texts move by a pixel between versions of matplotlib and its
fonts, and a tolerance that forgives this forgives a missing arrow as well. What only a picture shows (texts that
overlap, or are cut off) is measured on the drawn figure.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("agg")

import matplotlib.pyplot as plt
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import to_hex
from recorded_run import FIVE, write_run

from orchestrator_lab import open_run, plots
from orchestrator_lab.errors import ConfigError
from orchestrator_lab.journal.writer import JournalWriter
from orchestrator_lab.plots import STYLE, agent_colors
from orchestrator_lab.plots.comparison import interval
from orchestrator_lab.plots.glyphs import fold
from orchestrator_lab.plots.traffic import shorten
from orchestrator_lab.schema import build_frame, empty_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator_lab.run import Run

#: Untyped: what matplotlib's getters give has too many types to tell them apart here.
pictures: Any = plots
NAMES = [name for name, _ in FIVE]
THIRTY = [(f"agent-{number:02d}", ("claude", "codex", "chat")[number % 3]) for number in range(30)]

#: Each picture, the table that it takes, and other arguments that it may have.
PLOTS: dict[str, tuple[Callable[..., Any], str, dict[str, Any]]] = {
    "timeline": (pictures.plot_timeline, "states", {}),
    "messages": (pictures.plot_messages, "messages", {}),
    "messages, right": (pictures.plot_messages, "messages", {"direction": "right", "labels": True}),
    "messages, in time": (pictures.plot_messages, "messages", {"spacing": "time"}),
    "matrix": (pictures.plot_matrix, "messages", {}),
    "network": (pictures.plot_network, "messages", {}),
    "latency": (pictures.plot_latency, "messages", {}),
    "latency, agents": (pictures.plot_latency, "messages", {"by": "agent"}),
    "tokens": (pictures.plot_tokens, "turns", {}),
    "tokens, agents": (pictures.plot_tokens, "turns", {"stack": "agent"}),
    "tokens, classes": (pictures.plot_tokens, "turns", {"stack": "class"}),
    "cost": (pictures.plot_cost, "turns", {}),
    "tools": (pictures.plot_tools, "tool_calls", {}),
    "tools, tools": (pictures.plot_tools, "tool_calls", {"by": "tool"}),
    "states": (pictures.plot_states, "states", {}),
    "runs": (pictures.compare_runs, "runs", {}),
}
EACH = pytest.mark.parametrize("name", PLOTS)


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_run(write_run(tmp_path_factory.mktemp("five")))


@pytest.fixture(scope="module")
def sizes(five: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Run]:
    folder = tmp_path_factory.mktemp("sizes")
    three = open_run(write_run(folder, agents=FIVE[:3], rounds=2))
    return {3: three, 5: five, 30: open_run(write_run(folder, agents=THIRTY, rounds=2))}


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def draw(name: str, source: Any, **more: Any) -> Any:
    plot, _, arguments = PLOTS[name]
    return plot(source, **(arguments | more))


def of_type(axes: Any, kind: type) -> list[Any]:
    return [item for item in axes.collections if type(item) is kind]


def labels(axes: Any, axis: str = "y") -> list[str]:
    return [label.get_text() for label in getattr(axes, f"get_{axis}ticklabels")()]


def bar(axes: Any, label: object) -> Any:
    """Return left, right and lane of each bar of one name."""
    (found,) = [item for item in of_type(axes, PolyCollection) if item.get_label() == label]
    corners = [path.vertices for path in found.get_paths()]
    return [(one[:, 0].min(), one[:, 0].max(), round(one[:, 1].mean(), 3)) for one in corners]


def messages(pairs: list[tuple[str, str]], **columns: Any) -> pd.DataFrame:
    at = [f"2026-11-23T06:{number // 60 % 60:02d}:{number % 60:02d}Z" for number in range(len(pairs))]
    values = {
        "run_id": ["run_x"] * len(pairs),
        "sender": [one for one, _ in pairs],
        "recipient": [one for _, one in pairs],
        "queued_at": at,
        "accepted_at": at,
        "content": ["text"] * len(pairs),
    }
    return build_frame("messages", values | columns)


# all of them --------------------------------------------------------------------------------------


def test_what_the_package_shows_is_tried_here() -> None:
    drawn = {plot.__name__ for plot, _, _ in PLOTS.values()}
    assert drawn == {name for name in pictures.__all__ if name.startswith(("plot_", "compare_"))}


@EACH
@pytest.mark.parametrize("agents", [3, 5, 30])
def test_nothing_is_cut_off_and_labels_do_not_overlap(name: str, agents: int, sizes: dict[int, Run]) -> None:
    axes = draw(name, sizes[agents])
    figure = axes.figure
    figure.canvas.draw()
    page = figure.bbox.padded(1.5)
    ticks = {axis: seen_ticks(axes, axis) for axis in "xy"}
    shown = [*ticks["x"], *ticks["y"], axes.xaxis.label, axes.yaxis.label, axes.title]
    shown += [*axes.texts, *([axes.get_legend()] if axes.get_legend() else [])]
    for artist in shown:
        box = artist.get_window_extent()
        if box.width * box.height > 0:
            inside = (page.x0 <= box.x0, page.y0 <= box.y0, box.x1 <= page.x1, box.y1 <= page.y1)
            assert all(inside), (artist, inside)
            assert getattr(artist, "get_fontsize", lambda: 8)() >= 6, artist  # legible in print
    for axis, low, high in (("x", "x0", "x1"), ("y", "y0", "y1")):
        boxes = sorted((one.get_window_extent() for one in ticks[axis]), key=lambda box: getattr(box, low))
        for first, second in itertools.pairwise(boxes):
            assert getattr(first, high) <= getattr(second, low) + 1.0, (axis, agents)


def seen_ticks(axes: Any, name: str) -> list[Any]:
    """Return the labels of the ticks within the limits; those beyond are not drawn."""
    if not axes.axison:
        return []
    axis = getattr(axes, f"{name}axis")
    low, high = sorted(axis.get_view_interval())
    both = [*zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)]
    return [label for place, label in both if low <= place <= high and label.get_text()]


@EACH
def test_no_rows_say_so(name: str) -> None:
    axes = draw(name, empty_frame(PLOTS[name][1]))
    axes.figure.canvas.draw()
    (text,) = axes.texts
    assert text.get_text().startswith("no ")
    assert not axes.get_xticks().size


@EACH
def test_a_table_of_nothing_but_the_unknown_is_drawn(name: str) -> None:
    plot, table, arguments = PLOTS[name]
    columns = empty_frame(table).columns
    axes = plot(build_frame(table, {column: [None, None] for column in columns}), **arguments)
    axes.figure.canvas.draw()
    assert axes.texts or name.startswith(("tools", "runs"))


@EACH
def test_one_row_is_drawn(name: str, five: Run) -> None:
    plot, table, arguments = PLOTS[name]
    frame = getattr(five, table)
    rows = frame[frame["status"] == "answered"] if table == "messages" else frame
    axes = plot(rows.iloc[:1], **arguments)
    axes.figure.canvas.draw()
    assert axes.has_data() or axes.images


@EACH
def test_the_table_and_the_run_give_the_same_lanes(name: str, five: Run) -> None:
    plot, table, arguments = PLOTS[name]
    if table == "runs":
        pytest.skip("runs have no lanes")
    of_run = plot(five, **arguments)
    more = {} if name == "timeline" else {"agents": NAMES}
    if name == "timeline":
        more = {"messages": five.messages, "turns": five.turns}
    of_table = plot(getattr(five, table), **arguments, **more)
    for axis in "xy":
        lanes = [[one for one in labels(axes, axis) if one in NAMES] for axes in (of_run, of_table)]
        assert lanes[0] == lanes[1]


@EACH
def test_given_axes_are_used_and_nothing_global_changes(name: str, five: Run) -> None:
    before = dict(mpl.rcParams)
    _, axes = plt.subplots()
    assert draw(name, five, ax=axes) is axes
    assert plt.get_fignums() == [1]
    draw(name, five)
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("name", ["timeline", "messages", "cost"])
def test_axes_that_share_their_time_show_all_of_it(name: str, five: Run) -> None:
    """A long picture is not cut by a short one that is drawn later."""
    _, (above, below) = plt.subplots(2, 1, sharex=True)
    above.plot([-5.0, 3600.0], [0, 1])
    plot, _, arguments = PLOTS[name]
    more = {"direction": "right", "spacing": "time"} if name == "messages" else {}
    plot(five, ax=below, **arguments | more)
    low, high = above.get_xlim()
    assert low <= -5.0
    assert high >= 3600.0
    alone = draw(name, five) if name != "messages" else plot(five, **more)
    assert alone.get_xlim()[1] < 3600.0


@EACH
def test_a_table_that_lacks_a_column_is_named(name: str) -> None:
    plot, table, arguments = PLOTS[name]
    with pytest.raises(ConfigError, match=r"lacks|no column"):
        plot(empty_frame(table)[["run_id"]].reindex(range(1)), **arguments)


@pytest.mark.parametrize("name", ["timeline", "messages", "tokens", "cost", "states"])
def test_time_is_of_one_run(name: str, five: Run) -> None:
    _, table, _ = PLOTS[name]
    frame = getattr(five, table)
    with pytest.raises(ConfigError, match="holds 2 runs, this figure shows one"):
        draw(name, pd.concat([frame, frame.assign(run_id="run_y")]))


@pytest.mark.parametrize(
    ("plot", "wrong"),
    [
        (pictures.plot_messages, {"direction": "up"}),
        (pictures.plot_messages, {"spacing": "log"}),
        (pictures.plot_latency, {"by": "hour"}),
        (pictures.plot_tokens, {"kind": "cached"}),
        (pictures.plot_tokens, {"stack": "model"}),
        (pictures.plot_tools, {"by": "day"}),
    ],
)
def test_a_wrong_word_is_answered_by_the_right_ones(plot: Callable[..., Any], wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="is no choice of this figure; it takes: "):
        plot(empty_frame("messages"), **wrong)


def test_an_agent_has_one_colour_in_every_picture(five: Run) -> None:
    wanted = agent_colors(NAMES)
    labelled = [(draw(name, five), axis) for name, axis in (("timeline", "y"), ("messages", "x"), ("matrix", "y"))]
    labelled += [(draw("states", five), "y"), (draw("tools", five), "y"), (draw("latency, agents", five), "y")]
    for axes, axis in labelled:
        for label in getattr(axes, f"get_{axis}ticklabels")():
            if label.get_text() in wanted:
                assert to_hex(label.get_color()).upper() == pictures.look.shade(wanted[label.get_text()], 1)
    for line in draw("tokens", five).lines:
        assert line.get_color() == wanted[line.get_label()]
    ink = {
        name: to_hex(of_type(draw("tools, tools", five), PolyCollection)[0].get_facecolor()[0]) for name in ("boss",)
    }
    assert ink["boss"].upper() == wanted["boss"]
    (dots,) = [one for one in of_type(draw("network", five), PathCollection) if len(one.get_offsets()) == 6]
    assert [to_hex(one).upper() for one in dots.get_facecolor()] == ["#555555", *wanted.values()]


@pytest.mark.parametrize("name", ["timeline", "messages", "network", "tokens", "tools, tools"])
def test_every_agents_ink_is_seen(name: str, five: Run) -> None:
    axes = draw(name, five)
    axes.figure.canvas.draw()
    image = np.asarray(axes.figure.canvas.buffer_rgba())[:, :, :3].astype(int)
    for agent, color in agent_colors(NAMES).items():
        wanted = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
        # The program of the last one reports no tokens and calls no tools.
        if agent != "writer" or name in {"timeline", "messages", "network"}:
            assert (np.abs(image - wanted).max(axis=2) <= 3).sum() > 30, agent


def test_the_style_is_shipped() -> None:
    assert "figure.dpi" in mpl.rc_params_from_file(STYLE, use_default_template=False)


@pytest.mark.parametrize("name", ["timeline", "messages", "matrix", "network", "latency"])
def test_a_hundred_thousand_messages_are_few_artists(name: str) -> None:
    count = 100_000
    generator = np.random.default_rng(1)
    at = pd.Timestamp("2026-11-23T06:00", tz="UTC") + pd.to_timedelta(np.arange(count) / 10, unit="s").as_unit("us")
    sender, recipient = (generator.integers(0, 5, count) for _ in range(2))
    frame = messages([]).reindex(range(count))
    names = np.array(NAMES, dtype=object)
    frame["sender"], frame["recipient"], frame["run_id"] = names[sender], names[recipient], "run_x"
    for number, rung in enumerate(("queued", "claimed", "written", "accepted", "started", "answered")):
        frame[f"{rung}_at"] = at + pd.Timedelta(number * 0.1, unit="s")
    began = time.perf_counter()
    if name == "timeline":
        states = build_frame("states", {"agent": NAMES, "state": ["idle"] * 5, "started_at": ["2026-11-23T06:00Z"] * 5})
        axes = pictures.plot_timeline(states, frame)
    else:
        axes = draw(name, frame)
    axes.figure.canvas.draw()
    took = time.perf_counter() - began
    print(f"{name}: {took:.2f} s")
    assert len(axes.get_children()) < 60
    # An artist each takes minutes; this bound is for that, and not for the speed of a machine.
    assert took < 60


# messages -----------------------------------------------------------------------------------------


def test_each_message_is_an_arrow_from_sender_to_recipient_at_its_row() -> None:
    axes = pictures.plot_messages(messages([("user", "boss"), ("boss", "worker"), ("worker", "boss")]))
    assert labels(axes, "x") == ["user", "boss", "worker"]
    (shafts,) = of_type(axes, LineCollection)
    assert [segment.tolist() for segment in shafts.get_segments()] == [
        [[0, 0], [1, 0]], [[1, 1], [2, 1]], [[2, 2], [1, 2]],
    ]  # fmt: skip
    assert labels(axes, "y") == ["0.0", "1.0", "2.0"]
    low, high = axes.get_ylim()
    assert low > high  # time goes down
    colors = agent_colors(["boss", "worker"])
    assert [to_hex(one).upper() for one in shafts.get_colors()] == ["#555555", colors["boss"], colors["worker"]]


def test_in_time_an_arrow_leans_by_its_delivery() -> None:
    frame = messages([("boss", "worker")])
    frame["accepted_at"] += pd.Timedelta(3, unit="s")
    for direction, wanted in (("down", [[0, 0], [1, 3]]), ("right", [[0, 0], [3, 1]])):
        axes = pictures.plot_messages(frame, spacing="time", direction=direction)
        (shafts,) = of_type(axes, LineCollection)
        assert shafts.get_segments()[0].tolist() == wanted
    # A wall clock that was set back turns no arrow round.
    frame["accepted_at"] -= pd.Timedelta(9, unit="s")
    (shafts,) = of_type(pictures.plot_messages(frame, spacing="time"), LineCollection)
    assert shafts.get_segments()[0].tolist() == [[0, 0], [1, 0]]


def test_a_message_without_proof_is_dashed_and_ends_in_a_cross_before_its_lane() -> None:
    frame = messages([("boss", "worker"), ("boss", "worker")])
    frame.loc[1, "accepted_at"] = pd.NaT
    axes = pictures.plot_messages(frame)
    sure, lost = of_type(axes, LineCollection)
    assert sure.get_segments()[0][1].tolist() == [1, 0]
    assert lost.get_segments()[0][1].tolist() == [0.6, 1]
    assert lost.get_linestyle()[0][1] is not None
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["not accepted"]


def test_texts_are_folded_and_many_have_none(sizes: dict[int, Run]) -> None:
    texts = [text.get_text() for text in pictures.plot_messages(sizes[5]).texts]
    assert len(texts) == len(sizes[5].messages)
    assert any(text.endswith("…") for text in texts)
    assert not any("\n" in text for text in texts)
    assert not pictures.plot_messages(sizes[30]).texts
    assert not pictures.plot_messages(sizes[5], labels=False).texts


@given(st.text(max_size=60), st.integers(2, 30))
def test_a_folded_text_is_one_line_within_its_width(text: str, width: int) -> None:
    folded = fold(text, width).replace(r"\$", "$")
    assert len(folded) <= width
    assert "\n" not in folded
    plain = " ".join(text.split())
    assert folded == plain or folded.endswith("…") or "□" in folded


def test_who_writes_to_itself_has_a_stub() -> None:
    (shafts,) = of_type(pictures.plot_messages(messages([("boss", "boss")])), LineCollection)
    assert shafts.get_segments()[0].tolist() == [[0.35, 0], [0, 0]]


# matrix and network -------------------------------------------------------------------------------

pairs = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")), max_size=40)


@settings(max_examples=20)
@given(pairs)
def test_the_matrix_counts_every_message(found: list[tuple[str, str]]) -> None:
    axes = pictures.plot_matrix(messages(found))
    try:
        if not found:
            return
        counts = axes.images[0].get_array().filled(0)
        names = labels(axes)
        assert counts.sum() == len(found)
        for sender, recipient in found:
            assert counts[names.index(sender), names.index(recipient)] == found.count((sender, recipient))
        assert sum(int(text.get_text()) for text in axes.texts) == len(found)
    finally:
        plt.close("all")


def test_the_matrix_of_the_run_is_that_of_its_table(five: Run) -> None:
    axes = pictures.plot_matrix(five)
    assert labels(axes) == labels(axes, "x") == ["user", *NAMES]
    frame = five.messages
    counts = axes.images[0].get_array().filled(0)
    assert counts[0, 1] == (frame["sender"] == "user").sum() == 3
    assert counts.sum() == len(frame)


def test_an_edge_is_as_wide_as_it_has_messages(five: Run) -> None:
    axes = pictures.plot_network(messages([("a", "b")] * 6 + [("b", "a")] * 3 + [("b", "c")] + [("c", "c")]))
    (edges,) = of_type(axes, LineCollection)
    widths = edges.get_linewidths()
    assert len(widths) == 3  # what one writes to itself is no edge
    assert widths[2] - 0.5 == pytest.approx(2 * (widths[1] - 0.5))
    (heads,) = of_type(axes, PolyCollection)
    assert len(heads.get_paths()) == 3
    assert {"6", "3", "1"} <= {text.get_text() for text in axes.texts}
    # Both ways of a pair are seen: they bend to different sides.
    first, second = (edges.get_segments()[number][12] for number in (1, 2))
    assert np.linalg.norm(first - second) > 0.1
    assert {text.get_text() for text in pictures.plot_network(five).texts} >= {"user", *NAMES}


def test_counts_are_short() -> None:
    assert [shorten(one) for one in (0, 12, 999, 999.6, 1000, 9949, 9960, 123_456, 999_600)] == [
        "0", "12", "999", "1k", "1k", "9.9k", "10k", "123k", "1M",
    ]  # fmt: skip


# latency ------------------------------------------------------------------------------------------


def test_a_run_tells_every_rung_and_a_table_those_it_has(five: Run) -> None:
    steps = [line.get_label().split(":")[0] for line in pictures.plot_latency(five).lines]
    assert steps == [
        "queued → claimed", "claimed → written", "written → submitted", "submitted → accepted",
        "accepted → started", "started → answered",
    ]  # fmt: skip
    steps = [line.get_label().split(":")[0] for line in pictures.plot_latency(five.messages).lines]
    assert "written → accepted" in steps
    assert len(steps) == 5


def test_of_two_enters_the_one_that_led_to_acceptance_counts(tmp_path: Any) -> None:
    with JournalWriter(tmp_path / "journal.jsonl", run_id="run_x") as writer:
        about = {"agent": "boss", "message_id": "msg_1"}
        writer.append("message.queued", **about, sender="user", recipient="boss")
        for rung in ("claimed", "written", "submitted"):
            writer.append(f"message.{rung}", **about)
        last = writer.append("message.submitted", **about, attempt=2)
        accepted = writer.append("message.accepted", **about)
    (line,) = [one for one in pictures.plot_latency(tmp_path).lines if one.get_label().startswith("submitted")]
    assert line.get_label().endswith("(1)")
    took = (pd.Timestamp(accepted.at) - pd.Timestamp(last.at)).total_seconds()
    assert line.get_xdata()[-1] == pytest.approx(max(took, 1e-3))
    (line,) = [one for one in pictures.plot_latency(tmp_path).lines if one.get_label().startswith("written")]
    assert line.get_label().startswith("written → submitted")


def test_the_curve_is_the_share_of_the_messages(five: Run) -> None:
    frame = five.messages
    line = next(line for line in pictures.plot_latency(frame).lines if line.get_label().startswith("started"))
    took = (frame["answered_at"] - frame["started_at"]).dt.total_seconds().dropna().sort_values().to_numpy()
    x, y = line.get_data()
    assert np.interp(np.median(took) + 1e-9, x, y) >= 0.5
    assert x[1:].tolist() == took.tolist()
    assert y[-1] == 1
    assert f"({len(took)})" in line.get_label()


def test_what_is_too_short_for_the_axis_stands_at_its_end() -> None:
    frame = messages([("a", "b")] * 2)
    frame["claimed_at"] = frame["queued_at"] + pd.to_timedelta([0.0, -5.0], unit="s").as_unit("us")
    (line,) = pictures.plot_latency(frame).lines
    assert line.get_xdata().min() == pytest.approx(1e-3)


def test_the_bars_of_an_agent_add_up_to_its_mean(five: Run) -> None:
    axes = pictures.plot_latency(five, by="agent")
    frame = five.messages.dropna(subset=["answered_at"])
    whole = (frame["answered_at"] - frame["queued_at"]).dt.total_seconds().groupby(frame["recipient"]).mean()
    ends = {round(lane): right for _, right, lane in bar(axes, "started → answered")}
    for lane, name in enumerate(labels(axes)):
        assert ends[lane] == pytest.approx(whole[name], abs=1e-5)


# tokens and cost ----------------------------------------------------------------------------------


def turns(tokens: list[int | None], agent: str = "boss") -> pd.DataFrame:
    at = [f"2026-11-23T06:00:{number:02d}Z" for number in range(len(tokens))]
    values = {"agent": [agent] * len(tokens), "started_at": at, "ended_at": at, "cost_usd": tokens}
    return build_frame("turns", values | {"input_tokens": tokens, "output_tokens": tokens})


@settings(max_examples=25)
@given(st.lists(st.none() | st.integers(0, 10_000), min_size=1, max_size=12))
def test_the_unknown_is_never_drawn_as_a_value(tokens: list[int | None]) -> None:
    axes = pictures.plot_tokens(turns(tokens), kind="output")
    try:
        known = [one for one in tokens if one is not None]
        if not known:
            assert not axes.lines
            assert axes.texts[0].get_text() == "output tokens: not known of any turn"
            return
        (line,) = axes.lines
        assert line.get_drawstyle() == "steps-post"
        ys = line.get_ydata()
        assert ys[1:-1].tolist() == np.cumsum(known).tolist()
        # A step stands where a turn is known, and nowhere else.
        assert line.get_xdata()[1:-1].tolist() == [float(at) for at, one in enumerate(tokens) if one is not None]
        marks = of_type(axes, PathCollection)
        missing = len(tokens) - len(known)
        assert sum(len(one.get_offsets()) for one in marks) == missing
        assert ("not known" in axes.get_legend().get_texts()[0].get_text()) == (missing > 0)
    finally:
        plt.close("all")


def test_tokens_and_cost_of_a_run_end_at_its_sums(five: Run) -> None:
    agents = five.agents.set_index("name")
    ends = {line.get_label(): line.get_ydata()[-1] for line in pictures.plot_tokens(five).lines}
    assert set(ends) == {"boss", "manager", "coder", "tester"}
    for name, total in ends.items():
        assert total == agents.loc[name, "input_tokens"] + agents.loc[name, "output_tokens"]
    for line in pictures.plot_cost(five).lines:
        assert line.get_ydata()[-1] == pytest.approx(agents.loc[line.get_label(), "cost_usd"])
    texts = [text.get_text() for text in pictures.plot_cost(five).get_legend().get_texts()]
    assert "writer  not known (3 turns)" in texts


def tops(axes: Any) -> dict[str, float]:
    """Return where each area ends at the right, upper edge minus lower edge."""
    found = {}
    for area in [one for one in axes.collections if isinstance(one, PolyCollection)]:
        (path,) = area.get_paths()
        right = path.vertices[path.vertices[:, 0] == path.vertices[:, 0].max()][:, 1]
        found[area.get_label()] = right.max() - right.min()
    return found


def test_areas_of_tokens_end_at_the_sums_of_the_run(five: Run) -> None:
    turns = five.turns
    known = turns[turns["output_tokens"].notna()]
    agents = five.agents.set_index("name")
    areas = tops(pictures.plot_tokens(five, stack="agent"))
    assert areas == {
        name: agents.loc[name, "input_tokens"] + agents.loc[name, "output_tokens"]
        for name in ("boss", "manager", "coder", "tester")
    }
    split = known[known["cache_read_input_tokens"].notna()]
    read, written = split["cache_read_input_tokens"].sum(), split["cache_creation_input_tokens"].sum()
    expected = {
        "cache read": read,
        "cache written": written,
        "new input": split["input_tokens"].sum() - read - written,
        "input, not split": known.loc[known["cache_read_input_tokens"].isna(), "input_tokens"].sum(),
        "output": known["output_tokens"].sum(),
    }
    assert tops(pictures.plot_tokens(five, stack="class")) == expected
    assert tops(pictures.plot_tokens(five, stack="class", kind="output")) == {"output": expected.pop("output")}
    axes = pictures.plot_tokens(five, stack="class", kind="input")
    assert tops(axes) == expected
    # The upper edge of all is the whole, and it never falls.
    assert sum(expected.values()) == known["input_tokens"].sum()
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts[-1] == f"not known  {len(turns) - len(known)} turns"
    assert [text.rsplit("  ", 1)[0] for text in texts[:-1]] == list(reversed(expected))


@settings(max_examples=20)
@given(st.lists(st.none() | st.integers(0, 10_000), min_size=1, max_size=12), st.sampled_from(["agent", "class"]))
def test_the_unknown_has_no_area(tokens: list[int | None], stack: str) -> None:
    axes = pictures.plot_tokens(turns(tokens), kind="output", stack=stack)
    try:
        known = [one for one in tokens if one is not None]
        if not known:
            assert axes.texts[0].get_text() == "output tokens: not known of any turn"
            return
        assert sum(tops(axes).values()) == sum(known)
        marks = of_type(axes, PathCollection)
        places = [place.tolist() for one in marks for place in one.get_offsets()]
        sums = np.cumsum([one or 0 for one in tokens]).tolist()
        assert places == [[float(at), float(sums[at])] for at, one in enumerate(tokens) if one is None]
    finally:
        plt.close("all")


# tools and states ---------------------------------------------------------------------------------


def test_bars_of_tools_are_counts_and_failures(five: Run) -> None:
    calls = five.tool_calls
    for by, column in (("agent", "agent"), ("tool", "name")):
        axes = pictures.plot_tools(five, by=by)
        counts = calls[column].value_counts()
        failed = calls[calls["status"].isin(["error", "denied"])][column].value_counts()
        for lane, name in enumerate(labels(axes)):
            words = axes.texts[lane].get_text().split(",")
            assert int(words[0]) == counts[name]
            assert (f" {failed.get(name)} failed" in words) == (name in failed)
        red = {round(lane): right for _, right, lane in bar(axes, "failed")}
        assert red == {labels(axes).index(str(name)): count for name, count in failed.items()}


def test_rare_tools_share_a_part() -> None:
    count = [10, 9, 8, 7, 6, 5, 4, 3]
    names = [f"tool{number}" for number, times in enumerate(count) for _ in range(times)]
    axes = pictures.plot_tools(build_frame("tool_calls", {"agent": ["boss"] * len(names), "name": names}))
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == [f"tool{number}" for number in range(6)] + ["others"]
    (rest,) = bar(axes, "others")
    assert rest[1] - rest[0] == 7


def test_shares_of_states_add_up_to_all(five: Run) -> None:
    axes = pictures.plot_states(five)
    states = five.states
    names = labels(axes)
    assert names == NAMES
    length = (states["ended_at"].fillna(states[["started_at", "ended_at"]].max().max()) - states["started_at"]).dt
    busy = length.total_seconds()[states["state"] == "busy"].groupby(states["agent"]).sum()
    whole = length.total_seconds().groupby(states["agent"]).sum()
    for left, right, lane in bar(axes, "busy"):
        assert right - left == pytest.approx(busy.get(names[round(lane)], 0) / whole[names[round(lane)]])
    ends = np.max([[right for _, right, _ in bar(axes, one.get_label())] for one in axes.collections], axis=0)
    assert ends.tolist() == pytest.approx([1.0] * 5)


def test_turns_are_a_band_within_the_states(five: Run) -> None:
    bands = bar(pictures.plot_timeline(five), "turn")
    assert len(bands) == len(five.turns)
    took = sorted(right - left for left, right, _ in bands)
    assert took == pytest.approx(sorted(five.turns["duration_s"]), abs=1e-4)
    assert not [one for one in pictures.plot_timeline(five.states).collections if one.get_label() == "turn"]


# comparison ---------------------------------------------------------------------------------------


def runs_of(values: list[float | None], topology: list[Any], repeat: list[int], **more: Any) -> pd.DataFrame:
    params = [
        f'{{"topology": {one!r}, "repeat": {two}}}'.replace("'", '"') for one, two in zip(topology, repeat, strict=True)
    ]
    ids = [f"run_{number}" for number in range(len(values))]
    return build_frame("runs", {"run_id": ids, "params": params, "duration_s": values} | more)


def test_pairs_are_joined_and_their_difference_is_told() -> None:
    frame = runs_of([3.0, 5.0, 4.0, 7.0, 8.0], ["ring", "star", "ring", "star", "star"], [1, 1, 2, 2, 3])
    axes = pictures.compare_runs(frame, by="topology", pair="repeat")
    (lines,) = of_type(axes, LineCollection)[:1]
    assert [segment.tolist() for segment in lines.get_segments()] == [[[0, 3], [1, 5]], [[0, 4], [1, 7]]]
    mean, low, high = interval(np.array([2.0, 3.0]))
    assert axes.get_title(loc="left") == f"star − ring: +{mean} [{low:.3g}, {high:.3g}], 2 pairs".replace("-", "−")
    assert axes.get_ylabel() == "duration (s)"


def test_the_interval_is_students() -> None:
    mean, low, high = interval(np.array([4.1, 5.2, 6.3, 5.5]))
    # By hand: mean 5.275, standard error 0.45529, t of three degrees of freedom 3.182.
    assert (mean, low, high) == pytest.approx((5.275, 3.8263, 6.7237), abs=1e-4)


def test_a_folder_of_runs_is_compared(tmp_path: Any) -> None:
    for topology, pace in (("ring", 1.0), ("star", 1.5)):
        for repeat in range(2):
            write_run(tmp_path, agents=FIVE[:3], rounds=1, seed=repeat, pace=pace,
                      params={"topology": topology, "repeat": repeat})  # fmt: skip
    axes = pictures.compare_runs(tmp_path, by="topology", pair="repeat")
    assert sorted(labels(axes, "x")) == ["ring", "star"]
    assert axes.get_title(loc="left").endswith("2 pairs")
    assert pictures.compare_runs(tmp_path, "output_tokens").get_ylabel() == "output tokens"


def test_conditions_of_numbers_stand_in_their_order_and_the_unknown_is_counted() -> None:
    frame = runs_of([1.0, 2.0, None], [20, 3, 100], [1, 2, 3])
    axes = pictures.compare_runs(frame, by="topology")
    assert labels(axes, "x") == ["3", "20", "100"]
    assert axes.get_xlabel() == "topology; 1 of 3 runs: not known"


def test_what_cannot_be_compared_is_told() -> None:
    frame = runs_of([1.0, 2.0], ["ring", "ring"], [1, 1])
    with pytest.raises(ConfigError, match="no column or parameter 'size'; their params hold: repeat, topology"):
        pictures.compare_runs(frame, by="size")
    with pytest.raises(ConfigError, match="'status' of the runs is no number"):
        pictures.compare_runs(frame, "status")
    with pytest.raises(ConfigError, match="two runs of the condition 'ring' have the same repeat"):
        pictures.compare_runs(frame, by="topology", pair="repeat")


# the run that they draw ---------------------------------------------------------------------------


def test_the_recorded_run_is_the_same_each_time(five: Run, tmp_path: Any) -> None:
    again = open_run(write_run(tmp_path))
    for table in ("messages", "turns", "tool_calls", "states"):
        pd.testing.assert_frame_equal(
            getattr(five, table).drop(columns="run_id"), getattr(again, table).drop(columns="run_id"), check_like=True
        )
