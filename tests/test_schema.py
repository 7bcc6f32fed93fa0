from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_run import FIVE, write_run

from orchestrator_lab import frames
from orchestrator_lab.errors import ConfigError
from orchestrator_lab.schema import (
    EVENTS,
    KEYS,
    REFERENCES,
    SCHEMA_VERSION,
    TABLES,
    Column,
    build_frame,
    conform,
    empty_frame,
    new_id,
)

if TYPE_CHECKING:
    from pathlib import Path

DTYPES = {"string", "category", "Int64", "float64", "boolean", "datetime64[us, UTC]"}


@pytest.mark.parametrize("table", TABLES)
def test_empty_frame_has_all_columns_and_dtypes(table: str) -> None:
    frame = empty_frame(table)
    assert frame.columns.tolist() == [column.name for column in TABLES[table]]
    assert [str(dtype) for dtype in frame.dtypes] == [column.dtype for column in TABLES[table]]
    assert frame.attrs["schema_version"] == SCHEMA_VERSION
    assert len(frame) == 0


@pytest.mark.parametrize("table", TABLES)
def test_columns_follow_the_rules_of_names(table: str) -> None:
    columns = TABLES[table]
    assert columns[0].name == "run_id"
    assert len({column.name for column in columns}) == len(columns)
    for column in columns:
        assert column.dtype in DTYPES
        assert column.meaning.endswith((".", "…"))
        assert (column.categories is not None) == (column.dtype == "category")
        if column.name.endswith("_at"):
            assert column.dtype == "datetime64[us, UTC]"
        if column.name.endswith(("_s", "_usd")):
            assert column.dtype == "float64"
        if column.name.endswith(("_tokens", "_count")):
            assert column.dtype == "Int64"
        if column.name.endswith("_id"):
            assert column.dtype == "string"


def test_event_names_are_dotted_and_attributes_leave_the_envelope_alone() -> None:
    envelope = {"seq", "at", "monotonic_s", "agent", "message_id", "turn_id", "source", "level"}
    for name, event in EVENTS.items():
        assert name == event.name
        assert event.meaning.endswith(".")
        assert not envelope & set(event.attributes), name


@pytest.mark.parametrize("table", TABLES)
def test_rows_of_nothing_are_all_missing(table: str) -> None:
    frame = build_frame(table, {TABLES[table][0].name: [None, None]})
    assert frame.isna().all(axis=None)
    assert [str(dtype) for dtype in frame.dtypes] == [column.dtype for column in TABLES[table]]


def test_values_keep_their_meaning() -> None:
    frame = build_frame(
        "messages",
        {
            "message_id": ["000000000003", None],
            "hop": [2**62, None],
            "queue_s": [0.5, None],
            "kind": ["reply", None],
            "queued_at": ["2026-11-23T06:00:00.123456Z", None],
        },
    )
    assert frame["message_id"].tolist() == ["000000000003", pd.NA]
    assert frame["hop"][0] == 2**62
    assert frame["queued_at"][0] == pd.Timestamp("2026-11-23T06:00:00.123456Z")
    assert frame.iloc[1].isna().all()


def test_what_does_not_fit_is_missing_and_never_a_guess(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        frame = build_frame(
            "messages",
            {
                "hop": ["x", 1.5, 2**70, "7"],
                "kind": ["direct", "later", None, "reply"],
                "content": ["\udc80", {"a": [1]}, 3, "日本"],
                "queued_at": ["yesterday", None, "2026-01-01T00:00:00Z", "2026-01-01"],
                "queue_s": ["x", 1, None, float("inf")],
            },
        )
    assert frame["hop"].isna().tolist() == [True, True, True, True]
    assert frame["kind"].tolist() == ["direct", float("nan"), float("nan"), "reply"] or (
        frame["kind"].isna().tolist() == [False, True, True, False]
    )
    assert frame["content"].tolist() == ["?", '{"a": [1]}', "3", "日本"]
    assert frame["queued_at"].isna().tolist() == [True, True, False, False]
    assert frame["queue_s"][1] == 1.0
    assert "'later'" in caplog.text


def test_wrong_names_are_told_with_the_right_ones() -> None:
    with pytest.raises(ConfigError, match="no table 'message'; the tables are: runs, agents"):
        empty_frame("message")
    with pytest.raises(ConfigError, match="no column 'sendr'; it has: run_id"):
        build_frame("messages", {}, only=["sendr"])


def test_conform_casts_orders_drops_and_keeps_attrs() -> None:
    frame = pd.DataFrame({"extra": [1], "hop": [1.0], "run_id": ["run_x"]}, index=[7])
    frame.attrs["source"] = ["here"]
    conformed = conform(frame, "messages")
    assert conformed.dtypes.astype(str).tolist() == [column.dtype for column in TABLES["messages"]]
    assert conformed.index.tolist() == [7]
    assert conformed.attrs == {"source": ["here"], "schema_version": SCHEMA_VERSION}
    pd.testing.assert_frame_equal(conform(conformed, "messages"), conformed)


def test_conform_mends_a_frame_that_went_through_csv() -> None:
    frame = build_frame(
        "turns",
        {
            "turn_id": ["trn_1", "trn_2"],
            "started_at": ["2026-11-23T06:00:00.000001Z", None],
            "input_tokens": [5, None],
            "end_reason": ["completed", None],
        },
    )
    from io import StringIO

    again = conform(pd.read_csv(StringIO(frame.to_csv(index=False))), "turns")
    pd.testing.assert_frame_equal(again, frame)


def test_frames_go_through_parquet_unchanged(tmp_path: object) -> None:
    frame = build_frame(
        "messages",
        {"message_id": ["msg_1"], "status": ["queued"], "queued_at": ["2026-11-23T06:00:00Z"]},
    )
    file = f"{tmp_path}/messages.parquet"
    frame.to_parquet(file)
    pd.testing.assert_frame_equal(conform(pd.read_parquet(file), "messages"), frame)


def test_ids_have_their_prefix_and_sort_by_time() -> None:
    import time

    ids = []
    for _ in range(3):
        ids.append(new_id("msg_"))
        time.sleep(0.002)
    assert ids == sorted(ids)
    assert len(set(ids)) == 3
    assert all(name.startswith("msg_") and name == name.lower() for name in ids)


_ANY = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.lists(st.integers(), max_size=2)
)


@given(st.lists(_ANY, max_size=5), st.sampled_from([c for t in TABLES.values() for c in t]))
def test_any_json_value_can_be_built(values: list[object], column: Column) -> None:
    table = next(name for name, columns in TABLES.items() if column in columns)
    try:
        frame = build_frame(table, {column.name: values}, only=[column.name])
    except TypeError as error:  # unhashable values in closed sets
        raise AssertionError(column) from error
    assert str(frame[column.name].dtype) == column.dtype
    assert len(frame) == len(values)


def test_rows_are_known_by_their_keys_and_references_lead_to_a_row(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path, seed=seed)
    tables = {name: getattr(frames, f"{name}_df")(tmp_path) for name in TABLES}
    assert list(KEYS) == list(TABLES)
    for name, columns in KEYS.items():
        known_by = tables[name][list(columns)]
        assert not known_by.duplicated().any(), name
        assert known_by.notna().all(axis=None), name
    used = set()
    for one in REFERENCES:
        alone = one.to_table == "runs"
        here, there = tables[one.table], tables[one.to_table]
        meant = here.loc[here[one.column].notna(), [one.column] if alone else ["run_id", one.column]]
        known = there[[one.to_column] if alone else ["run_id", one.to_column]].drop_duplicates()
        joined = meant.merge(known, how="left", indicator=True, left_on=[*meant], right_on=[*known])
        lost = set(joined.loc[joined["_merge"] == "left_only", one.column])
        assert lost <= ({"user"} if one.column == "sender" else set()), one
        used |= {one} if len(joined) else set()
    # All but those of which a recorded run of this kind has no row.
    assert {(one.table, one.column) for one in REFERENCES if one not in used} <= {
        ("runs", "parent_run_id"),
        ("messages", "in_reply_to"),
        *((table, column) for table in ("alerts", "processes", "dialogs") for column in ("agent", "turn_id")),
    }
    assert set(tables["agents"]["name"]) == {name for name, _ in FIVE}
