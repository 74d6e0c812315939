"""Traps in `public`: a copy of everything that a statement of ours calls, which says that it ran.

What is planted is derived: of each function of Postgres whose name occurs in our source, every overload, and
each overload that would suit a call better (one argument of a commoner type); every operator; every type and
every system view that our source names. All by a user who may do no more than CREATE in `public`.
"""

import re
from pathlib import Path

import psycopg
from psycopg import sql

ROOT = Path(__file__).parents[2]
SOURCES = ("ledger", "consumer", "stockledger", "examples")
WORD = re.compile(r"[a-z_][a-z0-9_]*")

SPY = """
CREATE SEQUENCE public.spy;
GRANT ALL ON SEQUENCE public.spy TO PUBLIC;
CREATE FUNCTION public.spy(value anyelement) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.nextval('public.spy'::pg_catalog.regclass);
    RAISE EXCEPTION 'what was planted ran';
END $$;
"""
# Each in a block of its own: what can't be made (an argument of type internal, a result that plpgsql
# refuses) is left out, and the others are counted.
PLANT = """
DO $plant$
DECLARE
    made record;
    statement text;
    body text := $$ AS 'BEGIN PERFORM pg_catalog.nextval(''public.spy''::pg_catalog.regclass); '
                       'RAISE EXCEPTION ''what was planted ran''; END' LANGUAGE plpgsql $$;
    common text;
    types text[];
    planted integer := 0;
BEGIN
    FOR made IN
        SELECT p.proname, p.proretset, format_type(p.prorettype, NULL) AS result,
               ARRAY(SELECT format_type(t, NULL)
                     FROM unnest(p.proargtypes) WITH ORDINALITY a (t, n) ORDER BY n) AS types
        FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace
          AND (p.proname = ANY(current_setting('spy.words')::text[])
               OR p.oid IN (SELECT o.oprcode FROM pg_operator o))
    LOOP
        FOREACH common IN ARRAY ARRAY['', 'text', 'integer', 'smallint', 'bigint'] LOOP
            FOR n IN 1 .. CASE common WHEN '' THEN 1 ELSE cardinality(made.types) END LOOP
                types := made.types;
                IF common <> '' THEN types[n] := common; END IF;
                statement := format('CREATE FUNCTION public.%I(%s) RETURNS %s %s %s', made.proname,
                                    array_to_string(types, ', '), CASE WHEN made.proretset THEN 'SETOF' END,
                                    made.result, body);
                BEGIN
                    EXECUTE statement;
                    planted := planted + 1;
                EXCEPTION WHEN OTHERS THEN NULL;
                END;
            END LOOP;
        END LOOP;
    END LOOP;
    FOR made IN
        SELECT o.oprname, p.proname, o.oprleft,
               format_type(o.oprleft, NULL) AS l, format_type(o.oprright, NULL) AS r
        FROM pg_operator o JOIN pg_proc p ON p.oid = o.oprcode
    LOOP
        BEGIN
            EXECUTE format('CREATE OPERATOR public.%s (FUNCTION = public.%I, %s RIGHTARG = %s)',
                           made.oprname, made.proname,
                           CASE WHEN made.oprleft <> 0 THEN format('LEFTARG = %s,', made.l) END, made.r);
            planted := planted + 1;
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END LOOP;
    FOR made IN
        SELECT typname FROM pg_type
        WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r') AND typname NOT LIKE '\\_%'
          AND typname = ANY(current_setting('spy.words')::text[])
    LOOP
        EXECUTE format('CREATE DOMAIN public.%I AS pg_catalog.%I CHECK (public.spy(VALUE))',
                       made.typname, made.typname);
        planted := planted + 1;
    END LOOP;
    FOR made IN
        SELECT relname FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v')
          AND relname = ANY(current_setting('spy.words')::text[])
    LOOP
        BEGIN
            EXECUTE format('CREATE VIEW public.%I AS SELECT c.* FROM pg_catalog.%I c WHERE public.spy(1)',
                           made.relname, made.relname);
            EXECUTE format('GRANT SELECT ON public.%I TO PUBLIC', made.relname);
            planted := planted + 1;
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END LOOP;
    PERFORM set_config('spy.planted', planted::text, false);
END $plant$
"""


def words() -> list[str]:
    """Every word of our source that could be a function, a type or a view of Postgres."""
    files = [
        path for folder in SOURCES for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".sql")
    ]
    return sorted({word for file in files for word in WORD.findall(file.read_text("utf-8").lower())})


def plant(dsn: str) -> int:
    """Plant it all as the user of this DSN; returns how many things could be planted."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SET search_path = pg_catalog")
        conn.execute(SPY)
        conn.execute("SELECT set_config('spy.words', %s::text[]::text, false)", [words()])
        conn.execute(PLANT)
        row = conn.execute("SELECT current_setting('spy.planted')").fetchone()
    assert row is not None
    return int(row[0])


def ran(dsn: str) -> bool:
    """Whether anything that was planted has run; a sequence remembers it whatever was rolled back."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SET search_path = pg_catalog")
        return conn.execute("SELECT is_called FROM public.spy").fetchone() == (True,)


def put_first(dsn: str, database: str, search_path: str) -> None:
    """From now on sessions of this database look there first, if they don't say otherwise."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        statement = sql.SQL("ALTER DATABASE {} SET search_path = {}")
        admin.execute(statement.format(sql.Identifier(database), sql.SQL(search_path)))
