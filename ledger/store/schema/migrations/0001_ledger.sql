-- The ledger's tables. What the comments promise is held by constraints, triggers and `seal`;
-- tables are private, other programs read the views of 0002.

CREATE SEQUENCE ledger.entry_number AS bigint;

-- The journal's one row of state. Locked last in every batch and held to the commit.
CREATE TABLE ledger.head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    position bigint NOT NULL,
    hash bytea NOT NULL,
    catalogue bigint NOT NULL,              -- raised by every batch that registers, closes or lists
    stock_generation integer NOT NULL,
    recorded_at timestamptz NOT NULL
) WITH (fillfactor = 10);                   -- one hot row: leave its page room for new versions
INSERT INTO ledger.head (position, hash, catalogue, stock_generation, recorded_at)
VALUES (0, sha256('stockledger'), 0, 1, '-infinity');

-- Whose ledger this is: one consumer group on one Kafka cluster, for good; and in which database it is, so that
-- a restored copy doesn't join the group unasked.
CREATE TABLE ledger.identity (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    consumer_group text NOT NULL,
    cluster_id text NOT NULL,
    system_identifier bigint NOT NULL,
    database_oid bigint NOT NULL
);

CREATE TABLE ledger.lane (
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    topic_id text NOT NULL,
    start_offset bigint NOT NULL CHECK (start_offset >= 0),  -- what lies below was never meant to be read
    next_offset bigint NOT NULL DEFAULT 0 CHECK (next_offset >= 0),
    last_offset bigint,                     -- the last applied record, and what tells it from any other
    last_leader_epoch integer,
    last_timestamp_ms bigint,
    last_digest bytea,
    epoch bigint NOT NULL DEFAULT 0,
    owner_host text,
    owner_pid integer,
    backend_pid integer,
    backend_start timestamptz,
    PRIMARY KEY (topic, partition),
    CONSTRAINT lane_mark CHECK (
        num_nulls(last_offset, last_leader_epoch, last_timestamp_ms, last_digest) IN (0, 4)
        AND last_offset < next_offset)
) WITH (fillfactor = 50);

-- One row per batch. `position` is dense and in commit order; `entry` joins the batch's rows to it.
CREATE TABLE ledger.journal (
    position bigint PRIMARY KEY,
    entry bigint NOT NULL UNIQUE,
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    epoch bigint NOT NULL,
    first_offset bigint NOT NULL,
    next_offset bigint NOT NULL,
    applied integer NOT NULL CHECK (applied >= 0),
    rejected integer NOT NULL CHECK (rejected >= 0),
    duplicate integer NOT NULL CHECK (duplicate >= 0),
    conflict integer NOT NULL CHECK (conflict >= 0),
    dead integer NOT NULL CHECK (dead >= 0),
    skipped bigint NOT NULL CHECK (skipped >= 0),
    recorded_at timestamptz NOT NULL,
    digest bytea NOT NULL,
    hash bytea NOT NULL,
    UNIQUE (topic, partition, first_offset),
    CONSTRAINT journal_tiles CHECK (
        next_offset > first_offset
        AND applied + rejected + duplicate + conflict + dead + skipped = next_offset - first_offset)
);

CREATE TABLE ledger.event (
    entry bigint NOT NULL,
    ordinal integer NOT NULL,
    stream text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    type text COLLATE "C" NOT NULL,
    payload json NOT NULL,
    delta bigint NOT NULL,                  -- what folds need, beside the payload: the change of stock
    user_id text COLLATE "C",
    source text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    PRIMARY KEY (stream, version)
) WITH (autovacuum_vacuum_insert_threshold = 100000, autovacuum_vacuum_insert_scale_factor = 0.05);
CREATE INDEX event_entry ON ledger.event USING brin (entry) WITH (pages_per_range = 32, autosummarize = on);

-- The register that answers duplicates, permanently. A rejection has a reason, an application a version.
CREATE TABLE ledger.processed_message (
    entry bigint NOT NULL,
    "offset" bigint NOT NULL,
    version bigint,
    reason text COLLATE "C",
    fingerprint bytea NOT NULL,
    source text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    PRIMARY KEY (id, source),
    CONSTRAINT processed_message_outcome CHECK ((reason IS NULL) = (version IS NOT NULL))
) WITH (autovacuum_vacuum_insert_threshold = 100000, autovacuum_vacuum_insert_scale_factor = 0.05);
CREATE INDEX processed_message_entry ON ledger.processed_message
    USING brin (entry) WITH (pages_per_range = 32, autosummarize = on);

-- The purchase that was cancelled; its primary key is why it is cancelled once.
CREATE TABLE ledger.cancellation (
    entry bigint NOT NULL,
    source text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    PRIMARY KEY (id, source)
);

-- Records that are no valid command, byte for byte. Only `status` may change.
CREATE TABLE ledger.dead_letter (
    entry bigint NOT NULL,
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    code text NOT NULL,
    detail text NOT NULL,
    key bytea,
    value bytea,
    header_names bytea[],
    header_values bytea[],
    status text NOT NULL DEFAULT 'parked' CHECK (status IN ('parked', 'redriven', 'discarded')),
    PRIMARY KEY (topic, partition, "offset")
);

-- A known id that came with another payload: both fingerprints, both deliveries.
CREATE TABLE ledger.conflict (
    entry bigint NOT NULL,
    source text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    first_fingerprint bytea NOT NULL,
    first_topic text COLLATE "C" NOT NULL,
    first_partition integer NOT NULL,
    first_offset bigint NOT NULL,
    second_fingerprint bytea NOT NULL,
    second_topic text COLLATE "C" NOT NULL,
    second_partition integer NOT NULL,
    second_offset bigint NOT NULL,
    second_value bytea NOT NULL,
    PRIMARY KEY (second_topic, second_partition, second_offset)
);

-- Offsets that hold no record, or whose records were gone before they were read.
CREATE TABLE ledger.gap (
    entry bigint NOT NULL,
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    first_offset bigint NOT NULL,
    next_offset bigint NOT NULL CHECK (next_offset > first_offset),
    cause text NOT NULL,
    accepted_by text NOT NULL,
    PRIMARY KEY (topic, partition, first_offset),
    CONSTRAINT gap_before_start CHECK (cause <> 'before_start' OR first_offset = 0)
);

-- What `decide` needs, always current, written in the batch's transaction. A generation of `stock`
-- can be built beside the live one; the head says which one is live.
CREATE TABLE ledger.stock (
    generation integer NOT NULL,
    goods_id text COLLATE "C" NOT NULL,
    on_hand bigint NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (generation, goods_id),
    CONSTRAINT stock_bounds CHECK (on_hand BETWEEN 0 AND 9007199254740992)
) PARTITION BY LIST (generation);
CREATE TABLE ledger.stock_1 PARTITION OF ledger.stock FOR VALUES IN (1) WITH (fillfactor = 50);

CREATE TABLE ledger.account (
    user_id text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    closed boolean NOT NULL
);

-- Append only: no role may change what was written, not even with replication triggers off.
CREATE FUNCTION ledger.refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'ledger.% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'SL010';
END $$;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['journal', 'event', 'processed_message', 'cancellation', 'dead_letter', 'conflict', 'gap'] LOOP
        IF name <> 'dead_letter' THEN
            EXECUTE format('CREATE TRIGGER no_update BEFORE UPDATE ON ledger.%I
                            FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change()', name);
            EXECUTE format('ALTER TABLE ledger.%I ENABLE ALWAYS TRIGGER no_update', name);
        END IF;
        EXECUTE format('CREATE TRIGGER no_delete BEFORE DELETE ON ledger.%I
                        FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change()', name);
        EXECUTE format('CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.%I
                        FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change()', name);
        EXECUTE format('ALTER TABLE ledger.%I ENABLE ALWAYS TRIGGER no_delete', name);
        EXECUTE format('ALTER TABLE ledger.%I ENABLE ALWAYS TRIGGER no_truncate', name);
    END LOOP;
END $$;
CREATE TRIGGER no_update BEFORE UPDATE ON ledger.dead_letter FOR EACH ROW
WHEN (    -- one by one: that is how a dump of it is read back
    OLD.entry IS DISTINCT FROM NEW.entry OR OLD.topic IS DISTINCT FROM NEW.topic OR OLD.partition IS DISTINCT FROM NEW.partition
    OR OLD."offset" IS DISTINCT FROM NEW."offset" OR OLD.code IS DISTINCT FROM NEW.code OR OLD.detail IS DISTINCT FROM NEW.detail
    OR OLD.key IS DISTINCT FROM NEW.key OR OLD.value IS DISTINCT FROM NEW.value OR OLD.header_names IS DISTINCT FROM NEW.header_names
    OR OLD.header_values IS DISTINCT FROM NEW.header_values)
EXECUTE FUNCTION ledger.refuse_change();
ALTER TABLE ledger.dead_letter ENABLE ALWAYS TRIGGER no_update;

-- Writes the batch's new state over stock rows that it has locked, and notes it for caches; a text holds a value
-- a line. The first `listed` of them are new rows, which are there already.
-- Raises LG004 if one of the others isn't there to be written.
CREATE FUNCTION ledger.write_stock(
    entry bigint, generation integer, listed integer, goods text, versions text, on_hands text
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_mergejoin = off SET enable_nestloop = off AS $$
#variable_conflict use_variable
DECLARE
    goods_ids text[] := (string_to_array(goods, E'\n'))[listed + 1 :];
    written bigint;
BEGIN
    UPDATE ledger.stock s SET version = n.version, on_hand = n.on_hand
    FROM unnest(goods_ids, (string_to_array(versions, E'\n'))[listed + 1 :]::bigint[],
                (string_to_array(on_hands, E'\n'))[listed + 1 :]::bigint[]) AS n (goods_id, version, on_hand)
    WHERE s.generation = generation AND s.goods_id = n.goods_id
        AND s.goods_id = ANY(goods_ids);        -- by the key, then hashed: whatever the statistics say
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written <> cardinality(goods_ids) THEN
        RAISE EXCEPTION '% stock rows were locked, but % could be written', cardinality(goods_ids), written
            USING ERRCODE = 'LG004';
    END IF;
    INSERT INTO ledger.stock_delta VALUES (entry, goods, versions, on_hands);
END $$;

-- Whoever takes a lane over raises its epoch by one and is named by the session that did it. So an epoch can't
-- be used up, and nobody can have another session ended by writing its number here.
CREATE FUNCTION ledger.name_owner() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.epoch <> OLD.epoch + 1 THEN
        RAISE EXCEPTION 'a lane is taken over by raising its epoch by one' USING ERRCODE = 'LG005';
    END IF;
    SELECT a.pid, a.backend_start INTO NEW.backend_pid, NEW.backend_start
    FROM pg_stat_get_activity(pg_backend_pid()) a;
    RETURN NEW;
END $$;
CREATE TRIGGER name_owner BEFORE UPDATE OF epoch, owner_host, owner_pid, backend_pid, backend_start ON ledger.lane
FOR EACH ROW EXECUTE FUNCTION ledger.name_owner();

-- Takes the batch's position and writes its journal row. The head's lock is held from here to the
-- commit, so positions become visible in order and without holes. The hash covers the hash before, the digest
-- and every other column of the row (`chain` in store/tables/journal.py makes the same one).
-- It believes its caller nothing that it can know itself: the lane stands where this entry ends, which begins
-- where the lane's last one ended; the epoch is the lane's; the number was taken in this session; the offsets
-- that are skipped have their gaps. Each is a look by a unique key, without which the planner would read a
-- small table as a whole, so it may not.
-- Raises LG001 if the catalogue moved since `seen_catalogue` was read (null: nothing to compare),
-- LG002 if `stock_generation` isn't the live one any more, LG003 if commits aren't durable, LG005 if the entry
-- isn't the one that follows.
CREATE FUNCTION ledger.seal(
    entry bigint, topic text, partition integer, epoch bigint, first_offset bigint, next_offset bigint,
    applied integer, rejected integer, duplicate integer, conflict integer, dead integer, skipped bigint,
    digest bytea, seen_catalogue bigint, bump_catalogue boolean, stock_generation integer
) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_variable
DECLARE
    head ledger.head;
    lane ledger.lane;
    ended bigint;
    in_gaps bigint;
BEGIN
    IF current_setting('synchronous_commit') = 'off' THEN
        RAISE EXCEPTION 'synchronous_commit is off' USING ERRCODE = 'LG003';
    END IF;
    SELECT l.* INTO lane FROM ledger.lane l WHERE l.topic = topic AND l.partition = partition;
    SELECT j.next_offset INTO ended FROM ledger.journal j WHERE j.topic = topic AND j.partition = partition
    ORDER BY j.first_offset DESC LIMIT 1;
    IF skipped <> 0 THEN
        SELECT sum(g.next_offset - g.first_offset) INTO in_gaps FROM ledger.gap g
        WHERE g.topic = topic AND g.partition = partition AND g.entry = entry
            AND g.first_offset >= first_offset AND g.next_offset <= next_offset;
    END IF;
    IF (lane.epoch, lane.next_offset) IS DISTINCT FROM (epoch, next_offset)
       OR first_offset <> coalesce(ended, 0) OR skipped <> coalesce(in_gaps, 0) THEN
        RAISE EXCEPTION 'no entry of %[%] from % to % with epoch % and % skipped can follow: the lane is at % with '
            'epoch %, its entries end at %, the gaps of entry % cover %', topic, partition, first_offset, next_offset,
            epoch, skipped, lane.next_offset, lane.epoch, coalesce(ended, 0), entry, coalesce(in_gaps, 0)
            USING ERRCODE = 'LG005';
    END IF;
    IF entry IS DISTINCT FROM currval('ledger.entry_number') OR octet_length(digest) IS DISTINCT FROM 32 THEN
        RAISE EXCEPTION 'the number of entry % is not this session''s last one, or its digest has not 32 bytes', entry
            USING ERRCODE = 'LG005';
    END IF;
    SELECT h.* INTO STRICT head FROM ledger.head h FOR UPDATE;
    IF head.stock_generation <> stock_generation THEN
        RAISE EXCEPTION 'the live stock is generation % now', head.stock_generation USING ERRCODE = 'LG002';
    END IF;
    IF head.catalogue <> seen_catalogue THEN
        RAISE EXCEPTION 'the catalogue moved to %', head.catalogue USING ERRCODE = 'LG001';
    END IF;
    head.position := head.position + 1;
    head.catalogue := head.catalogue + bump_catalogue::integer;
    head.recorded_at := greatest(head.recorded_at, clock_timestamp());   -- never before its predecessor
    head.hash := sha256(head.hash || digest || convert_to(concat_ws(E'\t',
        head.position, entry, partition, epoch, first_offset, next_offset, applied, rejected, duplicate, conflict,
        dead, skipped, trunc(extract(epoch FROM head.recorded_at) * 1000000), topic), 'UTF8'));
    UPDATE ledger.head h SET position = head.position, hash = head.hash,
        catalogue = head.catalogue, recorded_at = head.recorded_at;
    INSERT INTO ledger.journal VALUES (
        head.position, entry, topic, partition, epoch, first_offset, next_offset,
        applied, rejected, duplicate, conflict, dead, skipped, head.recorded_at, digest, head.hash);
    RETURN head.position;
END $$;

-- For the batch whose catalogue keeps moving: holds the head before its last look at what it read.
CREATE FUNCTION ledger.lock_head() RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT catalogue FROM ledger.head FOR UPDATE
$$;
