"""Sealed runs: the tables of a run as Parquet files beside its journal, which stays the truth.

A seal is made in one step, read back before it counts, and is of one journal of one length: when the journal has grown
since, or the seal is of another schema, it is passed over and the journal is read.

References
----------
Apache Parquet, https://parquet.apache.org/docs/file-format/
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import EnvironmentProblem, JournalError, disk_error
from orchestrator_lab.mirrors import readable
from orchestrator_lab.runtime import sync_folder
from orchestrator_lab.schema import INSTANT, SCHEMA_VERSION, TABLES, columns_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import pandas as pd

    from orchestrator_lab.schema import Column

    Pieces = Callable[[], Iterable[pd.DataFrame]]

__all__ = ["FOLDER", "Seal", "journal_digest", "made_here", "open_seal", "read_sealed", "unseal", "write_seal"]

logger = logging.getLogger(__name__)

#: Where the tables of a run lie, and what tells what they are of.
FOLDER, _FACTS = "tables", "seal.json"
_NEW, _OLD = ".tables.new-", ".tables.old-"
#: Rows that are packed together: what a filter can leave out.
_GROUP = 1 << 16
#: Columns of text in which the same values come again and again.
_REPEATED = frozenset(
    {
        *("run_id", "agent", "name", "sender", "recipient", "kind", "model", "source", "event", "rule", "level"),
        *("conversation_id", "program", "program_version", "provider", "role", "cwd", "error_type"),
    }
)


@dataclass(frozen=True, slots=True)
class Seal:
    """What the tables of a sealed run were made of.

    Parameters
    ----------
    folder : str
        The run's folder.
    journal_bytes : int
        Length of the journal that was read.
    rows : dict of str to int
        Rows of each table.
    sha256 : dict of str to str
        Digest of each file.
    package_version : str
        Version of orchestrator-lab that made it.
    schema_version : int
        Version of the tables.
    journal_sha256 : str
        Digest of that journal; empty in seals of earlier versions.
    """

    folder: str
    journal_bytes: int
    rows: dict[str, int]
    sha256: dict[str, str]
    package_version: str
    schema_version: int = SCHEMA_VERSION
    journal_sha256: str = ""

    def file(self, table: str) -> Path:
        """Return the Parquet file of a table."""
        return Path(self.folder) / FOLDER / f"{table}.parquet"


def write_seal(
    folder: Path,
    tables: Mapping[str, Pieces],
    *,
    journal_bytes: int,
    package_version: str,
    kept: Mapping[str, Path] | None = None,
) -> Seal:
    """Write tables as Parquet files, read them back, and put them in their place in one step.

    Parameters
    ----------
    folder : pathlib.Path
        The run's.
    tables : mapping of str to callable
        All tables of the schema: each call returns the frames that make it, one behind the other, so that a table need
        never be held whole. It is called once to write them, and once to check what was read back.
    journal_bytes : int
        Length of the journal that they were made of.
    package_version : str
        Version of orchestrator-lab that made them.
    kept : mapping of str to pathlib.Path, optional
        Tables that are made already, from :func:`made_here`: their files are copied.

    Returns
    -------
    Seal
        In force.

    Raises
    ------
    EnvironmentProblem, DiskFull
        When they cannot be written. What was there before stays.
    JournalError
        When what was read back is not what was written.
    """
    try:
        with _only_one(folder):
            return _seal(folder, tables, journal_bytes, package_version, kept or {})
    except OSError as error:
        raise disk_error(
            f"{folder}: its tables cannot be written ({error.strerror or error}); the journal is as it was, so make "
            "room or check the folder's owner, and seal again",
            error,
            path=folder,
        ) from error


def open_seal(folder: Path) -> Seal | None:
    """Return the seal of a run, None when there is none in force.

    Parameters
    ----------
    folder : pathlib.Path
        The run's.

    Returns
    -------
    Seal or None
        None also when the journal has grown since, or the seal is of another schema or damaged; the last two are
        warned of.

    Examples
    --------
    >>> open_seal(Path("/nonexistent")) is None
    True
    """
    facts_file = folder / FOLDER / _FACTS
    try:
        facts = json.loads(facts_file.read_bytes())
        seal = Seal(
            folder=str(folder),
            journal_bytes=int(facts["journal_bytes"]),
            rows={str(table): int(count) for table, count in facts["rows"].items()},
            sha256={str(table): str(digest) for table, digest in facts["sha256"].items()},
            package_version=str(facts["package_version"]),
            schema_version=int(facts["schema_version"]),
            journal_sha256=str(facts.get("journal_sha256", "")),
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s is damaged (%s); the journal is read instead, seal the run again", facts_file, error)
        return None
    if seal.schema_version != SCHEMA_VERSION:
        logger.warning(
            "%s is of schema %s, this version has %s; the journal is read instead, seal the run again",
            facts_file,
            seal.schema_version,
            SCHEMA_VERSION,
        )
        return None
    with contextlib.suppress(FileNotFoundError):
        if (folder / "journal.jsonl").stat().st_size != seal.journal_bytes:
            return None
    return seal


def journal_digest(folder: Path, size: int) -> str:
    """Return the SHA-256 of the first bytes of a run's journal; of none when there is no journal.

    Parameters
    ----------
    folder : pathlib.Path
        The run's.
    size : int
        How many.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    with contextlib.suppress(FileNotFoundError), (folder / "journal.jsonl").open("rb") as file:
        while size > 0 and (piece := file.read(min(size, 1 << 20))):
            digest.update(piece)
            size -= len(piece)
    return digest.hexdigest()


def made_here(seal: Seal, table: str, package_version: str) -> Path | None:
    """Return a table's file when this process would make the very same one of the same journal.

    Parameters
    ----------
    seal : Seal
        Of the run.
    table : str
        Any table of the schema.
    package_version : str
        Version of orchestrator-lab of this process.

    Returns
    -------
    pathlib.Path or None
        None when other versions of the packages made it, or it is not what the seal says.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = seal.file(table)
    try:
        if seal.package_version != package_version or _digest(path) != seal.sha256.get(table):
            return None
        facts = pq.read_metadata(path)
        told = (facts.schema.to_arrow_schema().pandas_metadata or {}).get("pandas_version")
    except (OSError, pa.ArrowException):
        return None
    same = facts.created_by.split()[-1] == pa.__version__ and told == pd.__version__
    return path if same and facts.num_rows == seal.rows.get(table) else None


def read_sealed(
    seal: Seal,
    table: str,
    *,
    columns: Sequence[str] | None = None,
    filters: list[list[tuple[str, str, Any]]] | None = None,
) -> pd.DataFrame | None:
    """Read a table of a sealed run: only the columns that are wanted, only the rows that fit.

    Parameters
    ----------
    seal : Seal
        Of the run.
    table : str
        Any table of the schema.
    columns : sequence of str, optional
        Columns wanted, in this order; all of them otherwise.
    filters : list of list of tuple, optional
        Rows wanted, as :func:`pyarrow.parquet.read_table` takes them.

    Returns
    -------
    pandas.DataFrame or None
        With the dtypes of the schema; None when the file is missing or damaged, which is warned of.
    """
    import pyarrow as pa

    path = seal.file(table)
    try:
        return _frame(path, table, columns, filters)
    except (OSError, pa.ArrowException) as error:
        # Arrow adds the schema of the file, and where in its own code it was.
        reason = "it is missing" if isinstance(error, FileNotFoundError) else str(error).strip().splitlines()[0]
        logger.warning("%s cannot be read (%s); the journal is read instead, seal the run again", path, reason)
        return None


def unseal(folder: Path) -> bool:
    """Take a run's Parquet files away; its journal stays.

    Parameters
    ----------
    folder : pathlib.Path
        The run's.

    Returns
    -------
    bool
        False when there were none.

    Raises
    ------
    EnvironmentProblem
        When they cannot be taken away.
    """
    place = folder / FOLDER
    if not place.is_dir():
        return False
    try:
        with _only_one(folder):
            _put_aside(place)
    except OSError as error:
        raise EnvironmentProblem(
            f"{place} cannot be removed ({error.strerror}); check its owner", path=str(place)
        ) from error
    return True


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold a run's folder, and clear away what a process left that was killed over it."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EnvironmentProblem(
                f"{folder} is being sealed by another process: wait for it, and try again", path=str(folder)
            ) from None
        for pattern in (f"{_OLD}*", f"{_NEW}*"):
            for left in folder.glob(pattern):
                shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        os.close(handle)


def _seal(
    folder: Path, tables: Mapping[str, Pieces], journal_bytes: int, package_version: str, kept: Mapping[str, Path]
) -> Seal:
    place = Path(tempfile.mkdtemp(prefix=_NEW, dir=folder))
    try:
        digests, rows = {}, {}
        for table in TABLES:
            path = place / f"{table}.parquet"
            if table in kept:
                rows[table] = _copy(kept[table], path)
            else:
                rows[table] = _write(path, tables[table](), table)
                _check(path, tables[table](), table)
            digests[table] = _digest(path)
        read = journal_digest(folder, journal_bytes)
        seal = Seal(str(folder), journal_bytes, rows, digests, package_version, journal_sha256=read)
        facts = asdict(seal)
        del facts["folder"]
        _write_facts(place / _FACTS, facts)
        sync_folder(place)
        _replace(folder, place)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return seal


# files ----------------------------------------------------------------------------------------------


def _write(path: Path, pieces: Iterable[pd.DataFrame], table: str) -> int:
    """Write a table; return its number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [column.name for column in columns_of(table)]
    dictionaries = [column.name for column in columns_of(table) if _repeats(column)]
    rows = 0
    with open(path, "xb", opener=_private) as file:
        with contextlib.ExitStack() as stack:
            writer: pq.ParquetWriter | None = None
            for piece in pieces:
                chosen = piece[names]
                # Arrow would write them into the file: where the run lies on this machine is nobody's business.
                chosen.attrs = {}
                content = pa.Table.from_pandas(chosen, preserve_index=False)
                if writer is None:
                    writer = pq.ParquetWriter(file, content.schema, compression="zstd", use_dictionary=dictionaries)
                    stack.enter_context(writer)
                # A piece without rows makes the table, but no group of them.
                if content.num_rows:
                    writer.write_table(content, row_group_size=_GROUP)
                rows += content.num_rows
        file.flush()
        os.fsync(file.fileno())
    return rows


def _copy(source: Path, path: Path) -> int:
    """Copy a table; return its number of rows."""
    import pyarrow.parquet as pq

    with source.open("rb") as before, open(path, "xb", opener=_private) as file:
        shutil.copyfileobj(before, file)
        file.flush()
        os.fsync(file.fileno())
    return int(pq.read_metadata(path).num_rows)


def _repeats(column: Column) -> bool:
    """Tell whether the same values come again and again in a column: names, kinds, runs, but no texts and ids."""
    if column.dtype == "category":
        return True
    return column.dtype == "string" and column.name in _REPEATED


def _frame(
    path: Path, table: str, columns: Sequence[str] | None, filters: list[list[tuple[str, str, Any]]] | None
) -> pd.DataFrame:
    import pyarrow.parquet as pq

    by_name = {column.name: column for column in columns_of(table)}
    wanted = list(by_name) if columns is None else list(columns)
    closed = [name for name in wanted if by_name[name].dtype == "category"]
    file = readable(path)
    try:
        _check_types(pq.read_schema(file), table)
        if not isinstance(file, Path):
            file.seek(0)
        return _as_frame(pq.read_table(file, columns=wanted, filters=filters, read_dictionary=closed), table)
    finally:
        if not isinstance(file, Path):
            file.close()


def _as_frame(content: Any, table: str) -> pd.DataFrame:  # noqa: ANN401 - an Arrow table
    import pandas as pd

    by_name = {column.name: column for column in columns_of(table)}
    data = {name: _array(content.column(name), by_name[name]) for name in content.column_names}
    return pd.DataFrame(data, index=pd.RangeIndex(content.num_rows), copy=False)


def _check_types(schema: Any, table: str) -> None:  # noqa: ANN401 - an Arrow schema
    """Raise when a file does not hold this table: somebody else may have made it."""
    import pyarrow as pa

    kinds: dict[str, Callable[[Any], bool]] = {
        "string": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
        "Int64": pa.types.is_int64,
        "boolean": pa.types.is_boolean,
        "float64": pa.types.is_float64,
        "category": lambda kind: pa.types.is_dictionary(kind) or pa.types.is_string(kind),
        INSTANT: lambda kind: kind == pa.timestamp("us", "UTC"),
    }
    for column in columns_of(table):
        place = schema.get_field_index(column.name)
        kind = schema.field(place).type if place >= 0 else None
        # A column without any value has no type of its own.
        if kind is None or not (kinds[column.dtype](kind) or pa.types.is_null(kind)):
            raise pa.ArrowInvalid(f"column {column.name!r} of table {table!r} is {kind}, not {column.dtype}")


def _array(chunks: Any, column: Column) -> Any:  # noqa: ANN401 - a chunked array, an extension array
    import pandas as pd
    import pyarrow as pa

    if column.dtype == "string":
        return pd.StringDtype("pyarrow").__from_arrow__(chunks)  # type: ignore[attr-defined]
    if column.dtype == "Int64":
        return pd.Int64Dtype().__from_arrow__(chunks)  # type: ignore[attr-defined]
    if column.dtype == "boolean":
        return pd.BooleanDtype().__from_arrow__(chunks)  # type: ignore[attr-defined]
    if column.dtype == "category":
        categories = list(column.categories or ())
        if not pa.types.is_dictionary(chunks.type):
            chunks = chunks.dictionary_encode()
        return pd.Categorical(chunks.to_pandas(), dtype=pd.CategoricalDtype(categories))
    if column.dtype == "float64":
        return chunks.to_numpy()
    return chunks.to_pandas().astype(column.dtype).array


def _check(path: Path, pieces: Iterable[pd.DataFrame], table: str) -> None:
    """Read a table back, and raise when it is not what was written."""
    import pyarrow.parquet as pq

    closed = [column.name for column in columns_of(table) if column.dtype == "category"]
    with pq.ParquetFile(path, read_dictionary=closed) as file:
        group = 0
        for piece in pieces:
            groups = list(range(group, group := group + -(-len(piece) // _GROUP)))
            content = file.read_row_groups(groups) if groups else file.schema_arrow.empty_table()
            read = _as_frame(content, table)
            written = piece.reset_index(drop=True)
            if not written.equals(read) or list(written.dtypes) != list(read.dtypes):
                group = -1
                break
        if group != file.metadata.num_row_groups:
            raise JournalError(
                f"{path}: what was read back of table {table!r} is not what was written; check the disk, and seal "
                "again",
                path=str(path),
            )


def _write_facts(path: Path, facts: dict[str, Any]) -> None:
    with open(path, "x", encoding="utf-8", opener=_private) as file:
        json.dump(facts, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _replace(folder: Path, place: Path) -> None:
    """Put a new folder of tables in the place of the old one; between the two steps the journal is read."""
    target = folder / FOLDER
    if target.exists():
        _put_aside(target)
    place.rename(target)
    sync_folder(folder)


def _put_aside(target: Path) -> None:
    aside = Path(tempfile.mkdtemp(prefix=_OLD, dir=target.parent))
    target.rename(aside / FOLDER)
    shutil.rmtree(aside, ignore_errors=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)
