"""The statements of one table, each compiled once for its driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

from sqlalchemy import BigInteger, Executable, Table, and_, bindparam, case, delete, func, null, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect

from sojourn.errors import ConfigurationError

PAGE: Final = 500
"""The most ids in one page of a scan, and rows that one clean-up looks at."""
BATCH: Final = 64
"""The most records in one page of a scan, and ids in one statement."""

Values: TypeAlias = Mapping[str, Any]
Row: TypeAlias = Sequence[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """One statement, as SQLAlchemy knows it and as a driver takes it."""

    expression: Executable
    text: str
    query: bytes
    """The text, as psycopg takes what is no literal of the program."""
    constants: Values
    """What SQLAlchemy binds of itself, such as the offset of a page."""
    has_rows: bool


class Statements:
    """Everything that a store asks of its *table*, each in one statement, so that none needs a transaction."""

    def __init__(self, table: Table, dialect: Dialect) -> None:
        c = table.c
        id, now = c.id == bindparam("the_id"), bindparam("now", type_=c.idle_deadline.type)
        is_live = and_(c.idle_deadline > now, c.absolute_deadline > now)
        has_expired = or_(c.idle_deadline <= now, c.absolute_deadline <= now)
        is_expected = c.version == bindparam("expected")
        write_ids = (c.write_id_1, c.write_id_2, c.write_id_3, c.write_id_4)
        written = bindparam("new_write_id", type_=BigInteger)
        content = {
            name: bindparam(f"new_{name}", type_=c[name].type)
            for name in ("version", "payload", "idle_deadline", "absolute_deadline", "index_label", "is_session")
        }
        fresh = {**content, "write_id_1": written, "write_id_2": null(), "write_id_3": null(), "write_id_4": null()}

        def compiled(expression: Executable, *, has_rows: bool = False) -> Statement:
            made = cast("Any", expression).compile(dialect=dialect)
            constants = {name: value for name, value in made.params.items() if value is not None}
            return Statement(expression, str(made), str(made).encode(), constants, has_rows)

        record = (c.version, c.payload, c.idle_deadline, c.absolute_deadline, c.index_label, *write_ids)
        self.load = compiled(select(*record).where(id, is_live), has_rows=True)
        # of so many ids each time, so that the text is always the same; the last ones may be ids of nothing
        ids = [bindparam(f"id_{place}", type_=c.id.type) for place in range(BATCH)]
        self.load_many = compiled(select(c.id, *record).where(c.id.in_(ids), is_live), has_rows=True)

        inserts = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}
        if dialect.name not in inserts:
            msg = f"the store sql is for PostgreSQL and SQLite; the engine is for {dialect.name}"
            raise ConfigurationError(msg)
        created: Any = inserts[dialect.name](table).values(id=bindparam("the_id"), **fresh)
        # It takes the place of a record that has expired, and meets its own earlier try, which it leaves as it is.
        is_repeated = and_(is_live, or_(*(each == written for each in write_ids)))
        kept = {name: case((is_repeated, c[name]), else_=value) for name, value in fresh.items()}
        self.create = compiled(
            created.on_conflict_do_update(index_elements=[c.id], set_=kept, where=or_(is_repeated, has_expired))
        )

        self.replace = compiled(
            update(table)
            .where(id, is_live, is_expected, *(each.is_distinct_from(written) for each in write_ids))
            .values(
                **content,
                write_id_1=written,
                write_id_2=c.write_id_1,
                write_id_3=c.write_id_2,
                write_id_4=c.write_id_3,
            )
        )
        # why a create or a replace changed nothing
        self.explain = compiled(select(c.version, *write_ids).where(id, is_live), has_rows=True)

        wanted = bindparam("new_idle_deadline", type_=c.idle_deadline.type)
        moved = case(
            (or_(c.idle_deadline >= wanted, c.idle_deadline >= c.absolute_deadline), c.idle_deadline),
            (wanted > c.absolute_deadline, c.absolute_deadline),
            else_=wanted,
        )
        self.touch = compiled(update(table).where(id, is_live).values(idle_deadline=moved))
        # what has expired by the clock of this node may be live by that of another: it goes, and was absent all the same
        self.delete = compiled(delete(table).where(id).returning(c.id, is_live), has_rows=True)
        self.delete_expected = compiled(delete(table).where(id, is_expected).returning(c.id, is_live), has_rows=True)

        versions = [bindparam(f"version_{place}", type_=c.version.type) for place in range(BATCH)]
        one_of = or_(*(and_(c.id == id, c.version == version) for id, version in zip(ids, versions, strict=True)))
        self.delete_many = compiled(delete(table).where(one_of).returning(c.id, is_live), has_rows=True)
        self.versions_of = compiled(select(c.id, c.version).where(c.id.in_(ids), is_live), has_rows=True)

        is_next = and_(c.id > bindparam("after"), is_live)
        page = select(c.id).where(is_next).order_by(c.id).limit(PAGE)
        self.ids_of = compiled(page.where(c.index_label == bindparam("label")), has_rows=True)
        self.scan = compiled(page, has_rows=True)
        self.scan_sessions = compiled(page.where(c.is_session), has_rows=True)
        records = select(c.id, *record).where(is_next).order_by(c.id).limit(BATCH)
        self.scan_records = compiled(records, has_rows=True)
        self.count = compiled(select(func.count()).select_from(table).where(is_live, c.is_session), has_rows=True)
        self.clear = compiled(delete(table))

        # The page is found by the primary key and then looked through, so its cost does not depend on what has expired;
        # a row that somebody else holds is left to the next one who cleans up.
        near, found = table.alias("near").c, table.alias("found").c
        page = select(near.id).where(near.id >= bindparam("start")).order_by(near.id).limit(PAGE)
        is_over = or_(found.idle_deadline <= now, found.absolute_deadline <= now)
        expired = select(found.id).where(found.id.in_(page), is_over).with_for_update(skip_locked=True)
        self.clean_up = compiled(delete(table).where(c.id.in_(expired), has_expired))
