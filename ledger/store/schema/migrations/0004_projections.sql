-- Projections: read models that follow the journal, built generation by generation. `ledger.projection` is
-- the pointer: which generation is live, how far each one is, and who builds the next one.

CREATE TABLE ledger.projection (
    name text COLLATE "C" NOT NULL,
    generation integer NOT NULL CHECK (generation > 0),  -- never given twice: the dropped ones stay noted
    version integer NOT NULL,               -- of the code that folds it
    relation text COLLATE "C" NOT NULL,     -- the table that it is a partition of
    status text COLLATE "C" NOT NULL CHECK (status IN ('building', 'live', 'standby', 'dropping', 'dropped')),
    inline boolean NOT NULL DEFAULT false,  -- while it is live, batches write it in their own transaction
    position bigint NOT NULL DEFAULT 0,     -- all up to here is applied
    done int8multirange[] NOT NULL DEFAULT '{"{}"}',  -- and these, out of order: one of each share of its rows
    target bigint NOT NULL DEFAULT 0,       -- where the head was when the rebuild began
    rate double precision,                  -- events a second of the rebuild that made it
    builder_host text,
    builder_pid integer,
    backend_pid integer,
    backend_start timestamptz,
    started_at timestamptz NOT NULL DEFAULT now(),
    swapped_at timestamptz,                 -- when it last became live, or ceased to be
    PRIMARY KEY (name, generation)
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX projection_live ON ledger.projection (name) WHERE status = 'live';
CREATE UNIQUE INDEX projection_building ON ledger.projection (name) WHERE status = 'building';

-- What each user bought of each item; what was cancelled stays counted, and is counted beside it.
CREATE TABLE ledger.purchases_by_user_rows (
    generation integer NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    goods_id text COLLATE "C" NOT NULL,
    purchases bigint NOT NULL,
    quantity bigint NOT NULL,
    cancelled bigint NOT NULL,
    cancelled_quantity bigint NOT NULL
) PARTITION BY LIST (generation);           -- each generation gets its key after its first chunk
CREATE TABLE ledger.purchases_by_user_rows_1 PARTITION OF ledger.purchases_by_user_rows FOR VALUES IN (1);
ALTER TABLE ledger.purchases_by_user_rows_1 REPLICA IDENTITY FULL;  -- no primary key, and updated
CREATE UNIQUE INDEX purchases_by_user_rows_1_key ON ledger.purchases_by_user_rows_1 (user_id, goods_id);

-- What was sold and what was cancelled on each UTC day; revenue of the purchases that had a price.
CREATE TABLE ledger.sales_by_day_rows (
    generation integer NOT NULL,
    day date NOT NULL,
    purchases bigint NOT NULL,
    quantity bigint NOT NULL,
    cancelled bigint NOT NULL,
    cancelled_quantity bigint NOT NULL,
    priced bigint NOT NULL,
    revenue_minor numeric NOT NULL,
    PRIMARY KEY (generation, day)
) PARTITION BY LIST (generation);
CREATE TABLE ledger.sales_by_day_rows_1 PARTITION OF ledger.sales_by_day_rows FOR VALUES IN (1);

-- Where each user's events stand in the journal.
CREATE TABLE ledger.user_events_rows (
    generation integer NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    ordinal integer NOT NULL,
    source text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    PRIMARY KEY (generation, user_id, position, ordinal)
) PARTITION BY LIST (generation);
CREATE TABLE ledger.user_events_rows_1 PARTITION OF ledger.user_events_rows FOR VALUES IN (1);

INSERT INTO ledger.projection (name, generation, version, relation, status, inline) VALUES
    ('stock', 1, 1, 'stock', 'live', true),
    ('purchases_by_user', 1, 1, 'purchases_by_user_rows', 'live', false),
    ('sales_by_day', 1, 1, 'sales_by_day_rows', 'live', false),
    ('user_events', 1, 1, 'user_events_rows', 'live', false);

CREATE VIEW ledger.purchases_by_user AS
SELECT user_id, goods_id, purchases, quantity, cancelled, cancelled_quantity FROM ledger.purchases_by_user_rows
WHERE generation = (SELECT generation FROM ledger.projection WHERE name = 'purchases_by_user' AND status = 'live');

CREATE VIEW ledger.sales_by_day AS
SELECT day, purchases, quantity, cancelled, cancelled_quantity, priced, revenue_minor FROM ledger.sales_by_day_rows
WHERE generation = (SELECT generation FROM ledger.projection WHERE name = 'sales_by_day' AND status = 'live');

CREATE VIEW ledger.user_events AS
SELECT user_id, position, ordinal, source, id FROM ledger.user_events_rows
WHERE generation = (SELECT generation FROM ledger.projection WHERE name = 'user_events' AND status = 'live');

-- How far each one is. A lag in seconds is the age of the first entry that is not applied yet.
CREATE VIEW ledger.projections AS
SELECT p.name, p.generation, p.version, p.status, at.position, h.position - at.position AS lag,
       coalesce(extract(epoch FROM clock_timestamp() - j.recorded_at), 0)::double precision AS lag_seconds,
       p.started_at, p.swapped_at
FROM ledger.projection p
CROSS JOIN ledger.head h
CROSS JOIN LATERAL (
    SELECT CASE WHEN p.inline AND p.status = 'live' THEN h.position ELSE p.position END AS position
) at
LEFT JOIN ledger.journal j ON j.position = at.position + 1
WHERE p.status NOT IN ('dropping', 'dropped')
ORDER BY p.name, p.generation;
