"""An analyst's own columns: labels and notes on messages, kept beside the journal.

``annotations.jsonl`` in the run's folder has one JSON object a line and is only ever appended to, under a lock, so
that two notebooks may write at once. The journal is not touched: what was recorded and what somebody thinks of it stay
apart.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import ConfigError, DiskFull, EnvironmentProblem, is_full
from orchestrator_lab.mirrors import present
from orchestrator_lab.runtime import sync_folder
from orchestrator_lab.schema import INSTANT, SCHEMA_VERSION, Column

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import pandas as pd

__all__ = ["ANNOTATIONS", "COLUMNS", "JOINED", "annotations_frame", "append_annotations", "join", "read_annotations"]

logger = logging.getLogger(__name__)

ANNOTATIONS = "annotations.jsonl"

#: One row an annotation, in the order in which they were made.
COLUMNS = (
    Column("run_id", "string", None, "The run."),
    Column("message_id", "string", None, "The message."),
    Column("label", "string", None, "The label given; NA when this one gave none, an empty text takes it away."),
    Column("note", "string", None, "The remark made; likewise."),
    Column("by", "string", None, "Who; NA when they did not say."),
    Column("at", INSTANT, "UTC", "When."),
)
#: What the messages table gains: of each message the last label and the last note.
JOINED = (
    Column("label", "string", None, "The last label given to it."),
    Column("note", "string", None, "The last remark made on it."),
    Column("annotated_by", "string", None, "Who annotated it last."),
    Column("annotated_at", INSTANT, "UTC", "When that was."),
)


def append_annotations(
    folder: Path,
    message_ids: Iterable[str],
    *,
    label: str | None = None,
    note: str | None = None,
    by: str | None = None,
) -> None:
    """Keep a label or a note on messages; on the disk when this returns.

    Parameters
    ----------
    folder : pathlib.Path
        The run's.
    message_ids : iterable of str
        The messages, which the caller has made sure of.
    label, note, by : str, optional
        What is said of them, and by whom.

    Raises
    ------
    ConfigError
        When nothing is said, or it is no text.
    EnvironmentProblem
        When the folder cannot be written to.
    DiskFull
        When there is no room.
    """
    said = {"label": label, "note": note, "by": by}
    for name, value in said.items():
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"annotate({name}={value!r}): expected text, such as {name}={str(value)!r}")
    if label is None and note is None:
        raise ConfigError("annotate() says nothing: give a label, a note, or both; an empty text takes one away")
    at = datetime.now(UTC).isoformat(timespec="microseconds")[:-6] + "Z"
    told = {name: value for name, value in said.items() if value is not None}
    lines = "".join(_line({"message_id": one, **told, "at": at}) for one in message_ids)
    if lines:
        _append(folder / ANNOTATIONS, lines.encode())


def _line(annotation: dict[str, str]) -> str:
    line = json.dumps(annotation, ensure_ascii=False, separators=(",", ":"))
    try:
        line.encode()
    except UnicodeEncodeError:  # a byte that was no UTF-8
        line = json.dumps(annotation, separators=(",", ":"))
    return line + "\n"


def _append(path: Path, data: bytes) -> None:
    """Append whole lines; leave nothing of them when that fails."""
    try:
        # A link in a folder that somebody else made must not lead the text elsewhere.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _failure(path, error) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            data = b"\n" + data  # whoever wrote last was killed within a line, which readers pass over
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
        except OSError:
            os.ftruncate(fd, size)
            raise
        if not size:
            sync_folder(path.parent)
    except OSError as error:
        raise _failure(path, error) from error
    finally:
        os.close(fd)


def _failure(path: Path, error: OSError) -> EnvironmentProblem | DiskFull:
    if is_full(error):
        return DiskFull(f"{path}: the annotation cannot be kept ({error.strerror}); make room", path=str(path))
    return EnvironmentProblem(
        f"{path}: the annotation cannot be kept ({error.strerror}); annotations lie in the run's folder: make it "
        "writable, or copy the run and annotate the copy",
        path=str(path),
    )


def read_annotations(folder: Path) -> list[dict[str, Any]]:
    """Return all annotations of a run, in the order in which they were made.

    Parameters
    ----------
    folder : pathlib.Path
        The run's.

    Returns
    -------
    list of dict
        With ``message_id``, ``at``, and of ``label``, ``note`` and ``by`` what was given. Damaged lines are passed over
        with a warning.

    Raises
    ------
    EnvironmentProblem
        When the file is there and cannot be read.

    Examples
    --------
    >>> from pathlib import Path
    >>> read_annotations(Path("/nonexistent"))
    []
    """
    path = present(folder / ANNOTATIONS)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise EnvironmentProblem(
            f"{path}: the annotations cannot be read ({error.strerror}); check its owner and mode", path=str(path)
        ) from error
    found: list[dict[str, Any]] = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line:
            continue
        try:
            annotation = json.loads(line)
            _ = annotation["message_id"]
            found.append(dict(annotation))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            logger.warning("%s: line %d is damaged and was skipped (%s)", path, number, error)
    return found


def annotations_frame(folder: Path | None, run_id: str) -> pd.DataFrame:
    """Return all annotations of a run as a table.

    Parameters
    ----------
    folder : pathlib.Path or None
        The run's.
    run_id : str
        Its id.

    Returns
    -------
    pandas.DataFrame
        One row an annotation: ``run_id``, ``message_id``, ``label``, ``note``, ``by``, ``at``.
    """
    from orchestrator_lab.casting import frame_of

    found = [] if folder is None else read_annotations(folder)
    data = {column.name: [one.get(column.name) for one in found] for column in COLUMNS}
    data["run_id"] = [run_id] * len(found)
    frame = frame_of(COLUMNS, data, len(found))
    frame.attrs = {"schema_version": SCHEMA_VERSION, "source": [run_id if folder is None else str(folder)]}
    return frame


def join(messages: pd.DataFrame, runs: Sequence[tuple[str, Path | None]]) -> pd.DataFrame:
    """Return a messages table with the columns of :data:`JOINED` behind its own.

    Parameters
    ----------
    messages : pandas.DataFrame
        With ``run_id`` and ``message_id``.
    runs : sequence of (str, pathlib.Path or None)
        Id and folder of each run in it.

    Returns
    -------
    pandas.DataFrame
        The same rows; NA where nobody said anything.
    """
    from orchestrator_lab.casting import to_array

    known: dict[tuple[str, str], dict[str, Any]] = {}
    for run_id, folder in runs:
        for one in [] if folder is None else read_annotations(folder):
            state = known.setdefault((run_id, str(one["message_id"])), {})
            for name in ("label", "note"):
                if isinstance(one.get(name), str):
                    state[name] = one[name] or None
            state["annotated_by"], state["annotated_at"] = one.get("by"), one.get("at")
    keys = list(zip(messages["run_id"], messages["message_id"], strict=True))
    joined = messages.copy(deep=False)
    for column in JOINED:
        values = [known.get(key, {}).get(column.name) for key in keys]
        joined[column.name] = to_array(values, column, len(keys))
    joined.attrs = dict(messages.attrs)
    return joined
