"""Vectors in a database: pgvector's type on PostgreSQL, bytes on SQLite, and how far one is from another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Dialect, Float, LargeBinary, TypeDecorator, func
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine, UserDefinedType

from app.roles import Vector


class PgVector(UserDefinedType[bytes]):
    """pgvector's `vector`, of any length; little-endian float32 here. It is read in its binary form: to read
    its text takes a hundred times as long."""

    cache_ok = True
    render_bind_cast = True

    def get_col_spec(self, **_: object) -> str:
        """Its name."""
        return "vector"

    def bind_processor(self, dialect: Dialect) -> Callable[[bytes | None], str | None]:
        """To text."""

        def text(value: bytes | None) -> str | None:
            return None if value is None else str(np.frombuffer(value, "<f4").tolist())

        return text

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """What is selected instead of the column."""
        return func.vector_send(column, type_=column.type)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[bytes | None], bytes | None]:
        """From 2 bytes of length, 2 of nothing, and big-endian float32."""

        def numbers(value: bytes | None) -> bytes | None:
            return None if value is None else np.frombuffer(value, ">f4", offset=4).astype("<f4").tobytes()

        return numbers


class Floats(TypeDecorator[Vector]):
    """A vector: float32."""

    impl = LargeBinary
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Of PostgreSQL `vector`."""
        return dialect.type_descriptor(PgVector() if dialect.name == "postgresql" else LargeBinary())

    def process_bind_param(self, value: Vector | None, dialect: Dialect) -> bytes | None:
        """To bytes."""
        return None if value is None else value.astype("<f4").tobytes()

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> Vector | None:
        """From bytes."""
        return None if value is None else np.frombuffer(value, "<f4").astype(np.float32)


class cosine_distance(FunctionElement[float]):
    """1 - cosine of two vectors, 0 to 2; null if they cannot be compared."""

    type = Float()
    inherit_cache = True


@compiles(cosine_distance)
def _named(element: cosine_distance, compiler: SQLCompiler, **given: Any) -> str:
    return f"cosine_distance({compiler.process(element.clauses, **given)})"


@compiles(cosine_distance, "postgresql")
def _operator(element: cosine_distance, compiler: SQLCompiler, **given: Any) -> str:
    one, other = (compiler.process(clause, **given) for clause in element.clauses)
    # The operator fails for vectors of different lengths, and gives NaN for one of length zero.
    return f"CASE WHEN vector_dims({one}) = vector_dims({other}) THEN nullif(({one} <=> {other}), 'NaN') END"


def distance_of_bytes(one: bytes | None, other: bytes | None) -> float | None:
    """The same for SQLite."""
    if one is None or other is None or len(one) != len(other):
        return None
    a, b = np.frombuffer(one, "<f4"), np.frombuffer(other, "<f4")
    size = float(np.sqrt((a @ a) * (b @ b)))
    return 1.0 - float(a @ b) / size if size else None
