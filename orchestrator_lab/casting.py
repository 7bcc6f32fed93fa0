"""From plain lists to arrays of the schema's dtypes."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from orchestrator_lab.schema import Column

__all__ = ["cast_array", "frame_of", "to_array", "to_values"]

logger = logging.getLogger(__name__)

#: Values of closed sets that were warned of already: a live run builds its tables again and again.
_TOLD: dict[str, set[str]] = {}


def frame_of(columns: Sequence[Column], data: Mapping[str, Sequence[Any]], length: int) -> pd.DataFrame:
    """Make a frame of columns that are no table of the schema.

    Parameters
    ----------
    columns : sequence of Column
        What they are, in order.
    data : mapping of str to sequence
        Values by column name; None is NA, as is a column that is absent.
    length : int
        Number of rows.

    Returns
    -------
    pandas.DataFrame
        With the declared dtypes, also without rows.
    """
    import pandas as pd

    arrays = {column.name: to_array(data.get(column.name), column, length) for column in columns}
    return pd.DataFrame(arrays, index=pd.RangeIndex(length), copy=False)


def to_array(values: Sequence[Any] | None, column: Column, length: int) -> Any:  # noqa: ANN401
    """Cast one list to the array of a column, by Arrow where that is faster than pandas.

    Parameters
    ----------
    values : sequence or None
        JSON values, ISO 8601 texts or datetimes for instants; None is NA, as is what does not fit.
    column : Column
        The column of the schema.
    length : int
        Number of rows, for a column without values.

    Returns
    -------
    array
        Of the column's dtype.
    """
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    if values is None:
        values = [None] * length
    if column.dtype == "category":
        dtype = pd.CategoricalDtype(list(column.categories or ()))
        codes = {name: code for code, name in enumerate(column.categories or ())}
        names = [value if isinstance(value, str) else None for value in values]
        _tell_strange(column, {name for name in names if name is not None and name not in codes})
        found = np.fromiter((codes.get(name or "", -1) for name in names), np.int8, length)
        return pd.Categorical.from_codes(found.tolist(), dtype=dtype)
    if column.dtype == "string":
        return _from_arrow(pd.StringDtype("pyarrow"), _strings(values))
    if column.dtype == "Int64":
        return _from_arrow(pd.Int64Dtype(), _numbers(values, pa.int64(), _integer))
    if column.dtype == "boolean":
        return _from_arrow(pd.BooleanDtype(), _numbers(values, pa.bool_(), _boolean))
    if column.dtype == "float64":
        floats = _numbers(values, pa.float64(), _float)
        return floats.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
    return _instants(values)


def cast_array(values: Any, column: Column, length: int) -> Any:  # noqa: ANN401 - arrays
    """Cast an array to the array of a column, without a Python loop over its values.

    Parameters
    ----------
    values : pyarrow.Array, pyarrow.ChunkedArray, numpy.ndarray or None
        Texts, numbers, or instants in microseconds (NumPy's); missing values are NA.
    column : Column
        The column of the schema.
    length : int
        Number of rows, for a column without values.

    Returns
    -------
    array
        Of the column's dtype.
    """
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    if values is None:
        return to_array(None, column, length)
    if column.dtype == "category":
        dtype = pd.CategoricalDtype(list(column.categories or ()))
        texts = values.cast(pa.string())
        found = pc.index_in(texts, value_set=pa.array(column.categories or (), pa.string()))
        strange = pc.unique(texts.filter(pc.and_(found.is_null(), texts.is_valid())))
        _tell_strange(column, set(strange.to_pylist()))
        return pd.Categorical.from_codes(pc.fill_null(found, -1).to_numpy().astype(np.int8), dtype=dtype)
    if column.dtype == "string":
        return _from_arrow(pd.StringDtype("pyarrow"), values.cast(pa.large_string()))
    if column.dtype == "Int64":
        return _from_arrow(pd.Int64Dtype(), (pa.array(values) if isinstance(values, np.ndarray) else values))
    if column.dtype == "boolean":
        return _from_arrow(pd.BooleanDtype(), values)
    if column.dtype == "float64":
        return values if isinstance(values, np.ndarray) else values.to_numpy(zero_copy_only=False)
    return pd.Series(values.astype("datetime64[us]")).dt.tz_localize("UTC").array


def to_values(column: pd.Series[Any], *, instants_as_text: bool = True) -> list[Any]:
    """Return a column of a table as plain values; NA is None, an instant is ISO 8601 as in the journal.

    Parameters
    ----------
    column : pandas.Series
        Of one of the schema's dtypes.
    instants_as_text : bool
        Otherwise they stay what they are, which costs less.

    Returns
    -------
    list
        What JSON can hold, but for such instants.
    """
    missing = column.isna()
    if instants_as_text and str(column.dtype).startswith("datetime64"):
        column = column.dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return [None if gone else value for value, gone in zip(column.tolist(), missing.tolist(), strict=True)]


def _tell_strange(column: Column, values: set[str]) -> None:
    strange = values - _TOLD.get(column.name, set())
    if strange:
        _TOLD.setdefault(column.name, set()).update(strange)
        logger.warning(
            "column %s has values that this version does not know and shows as NA: %s",
            column.name,
            ", ".join(sorted(map(repr, strange))),
        )


def _from_arrow(dtype: Any, array: Any) -> Any:  # noqa: ANN401 - the stubs lack the method
    return dtype.__from_arrow__(array)


def _strings(values: Sequence[Any]) -> Any:  # noqa: ANN401 - a pyarrow array
    import pyarrow as pa

    try:
        return pa.array(values, pa.large_string())
    except (pa.ArrowException, UnicodeError, TypeError):
        return pa.array([_string(value) for value in values], pa.large_string())


def _string(value: object) -> str | None:
    """Text of any JSON value; bytes that were no UTF-8 become replacement characters."""
    if value is None:
        return None
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return value.encode("utf-8", "replace").decode() if not value.isascii() else value


def _numbers(values: Sequence[Any], kind: Any, cast: Any) -> Any:  # noqa: ANN401 - pyarrow types
    import pyarrow as pa

    try:
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.array([None if value is None else cast(value) for value in values], kind)


def _integer(value: object) -> int | None:
    """Return an int64, or None for what is none: unknown is NA, never a guess."""
    try:
        number = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number == value and -(2**63) <= number < 2**63 else None


def _float(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _boolean(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _instants(values: Sequence[Any]) -> Any:  # noqa: ANN401 - a pandas array
    import pandas as pd
    import pyarrow as pa

    kind = pa.timestamp("us", tz="UTC")
    try:
        array = pa.array(values, pa.string()).cast(kind)
    except (pa.ArrowException, TypeError, UnicodeError):
        array = pa.array([_instant(value) for value in values], kind)
    return pd.Series(array.to_pandas()).astype(pd.DatetimeTZDtype("us", "UTC")).array


def _instant(value: object) -> datetime | None:
    """Return an instant of UTC; a text or datetime without a zone is taken to be UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
