-- The store on PostgreSQL, version 1: the tables of schema.sql, which says what they are for, and what is PostgreSQL's
-- own. Text is compared byte by byte, whatever the database's collation: lines are walked in the order of their names.
-- What changes all the time keeps room in its pages, so that a change needs no new entry in any index.

-- Its only row is what whoever writes locks first: one writes at a time. `version` counts what was committed, `id` tells
-- this store from one that was put in its place.
CREATE TABLE store (
    id      TEXT   COLLATE "C" NOT NULL,
    schema  BIGINT NOT NULL,
    version BIGINT NOT NULL,
    -- Of the last transaction, so that one whose commit got no answer can be recognised.
    writer  TEXT   COLLATE "C" NOT NULL,
    -- The word (below) of whoever wrote last; the one before it, and the version that was reached under that.
    word    TEXT   COLLATE "C" NOT NULL,
    before  TEXT   COLLATE "C" NOT NULL,
    left_at BIGINT NOT NULL
) WITH (fillfactor = 10);

-- A word by chance, that a crash takes: an unlogged table is empty after one, and on a standby that was promoted, but not
-- after a restart in order. Who finds it empty leaves another word.
CREATE UNLOGGED TABLE alive (
    word TEXT COLLATE "C" NOT NULL
);

CREATE TABLE meta (
    key   TEXT COLLATE "C" PRIMARY KEY,
    value TEXT COLLATE "C"
);

CREATE TABLE runs (
    n              BIGINT PRIMARY KEY,
    id             TEXT   COLLATE "C" NOT NULL UNIQUE,
    state          TEXT   COLLATE "C" NOT NULL,
    job            TEXT   COLLATE "C" NOT NULL,
    queue          TEXT   COLLATE "C" NOT NULL,
    priority       BIGINT NOT NULL,
    gate           TEXT   COLLATE "C",
    hold           TEXT   COLLATE "C",
    attempt        BIGINT NOT NULL DEFAULT 0,
    token          TEXT   COLLATE "C",
    worker         TEXT   COLLATE "C",
    retries_left   BIGINT,
    losses         BIGINT NOT NULL DEFAULT 0,
    crash_limit    BIGINT NOT NULL DEFAULT 3,
    on_worker_lost TEXT   COLLATE "C" NOT NULL DEFAULT 'retry',
    revoking       BIGINT NOT NULL DEFAULT 0,
    killing        BIGINT NOT NULL DEFAULT 0,
    enqueued_at    BIGINT NOT NULL,
    due_at         BIGINT NOT NULL,
    expires_us     BIGINT,
    expires_at     BIGINT,
    started_at     BIGINT,
    finished_at    BIGINT,
    trigger        TEXT   COLLATE "C" NOT NULL DEFAULT 'manual',
    schedule       TEXT   COLLATE "C",
    slot           BIGINT,
    pipeline       TEXT   COLLATE "C",
    position       BIGINT,
    lock_key       TEXT   COLLATE "C",
    unique_key     BYTEA,
    exit_code      BIGINT,
    error          TEXT   COLLATE "C",
    reason         TEXT   COLLATE "C",
    result_error   TEXT   COLLATE "C",
    message        TEXT   COLLATE "C" NOT NULL,
    result         BYTEA
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

CREATE INDEX runs_queued ON runs (queue, job, priority DESC, n) WHERE state = 'queued' AND gate IS NULL;
CREATE INDEX runs_gated ON runs (gate, priority DESC, n) WHERE gate IS NOT NULL AND finished_at IS NULL;
CREATE INDEX runs_locked ON runs (gate, queue, job, priority DESC, n)
    WHERE lock_key IS NOT NULL AND gate IS NOT NULL AND state = 'queued';
CREATE INDEX runs_due ON runs (due_at, n) WHERE state = 'scheduled';
CREATE INDEX runs_expiring ON runs (expires_at)
    WHERE expires_at IS NOT NULL AND finished_at IS NULL AND state <> 'running';
CREATE INDEX runs_running ON runs (worker) WHERE state = 'running';
CREATE INDEX runs_held ON runs (queue, job, n) WHERE state = 'held';
CREATE INDEX runs_ended ON runs (state, finished_at) WHERE finished_at IS NOT NULL AND position IS NULL;
CREATE INDEX runs_bad ON runs (state, n) WHERE finished_at IS NOT NULL AND state <> 'succeeded';
CREATE INDEX runs_job ON runs (job, n);
CREATE INDEX runs_schedule ON runs (schedule, n) WHERE schedule IS NOT NULL AND position IS NULL;
CREATE INDEX runs_of_schedule ON runs (schedule, gate NULLS FIRST, n)
    WHERE schedule IS NOT NULL AND finished_at IS NULL;
CREATE INDEX runs_pipeline ON runs (pipeline, position) WHERE pipeline IS NOT NULL;
CREATE INDEX runs_going_on ON runs (pipeline, position) WHERE pipeline IS NOT NULL AND finished_at IS NULL;
CREATE UNIQUE INDEX runs_unique ON runs (unique_key) WHERE unique_key IS NOT NULL AND finished_at IS NULL;

-- The ends of what attempts have printed, which otherwise lies on the machine that they ran on.
CREATE TABLE outputs (
    n       BIGINT NOT NULL REFERENCES runs (n) ON DELETE CASCADE,
    attempt BIGINT NOT NULL,
    stdout  BYTEA  NOT NULL,
    stderr  BYTEA  NOT NULL,
    PRIMARY KEY (n, attempt)
);

CREATE TABLE lines (
    queue TEXT   COLLATE "C" NOT NULL,
    job   TEXT   COLLATE "C" NOT NULL,
    state TEXT   COLLATE "C" NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (queue, job, state)
) WITH (fillfactor = 10);

-- A sequence counts when it is asked, beside transactions; but one alone asks at a time, until it has committed.
CREATE SEQUENCE events_seq;

CREATE TABLE events (
    seq      BIGINT PRIMARY KEY DEFAULT nextval('events_seq'),
    time     BIGINT NOT NULL,
    type     TEXT   COLLATE "C" NOT NULL,
    state    TEXT   COLLATE "C",
    n        BIGINT,
    run      TEXT   COLLATE "C",
    job      TEXT   COLLATE "C",
    attempt  BIGINT,
    worker   TEXT   COLLATE "C",
    schedule TEXT   COLLATE "C",
    slot     BIGINT,
    pipeline TEXT   COLLATE "C",
    by       TEXT   COLLATE "C",
    data     TEXT   COLLATE "C"
);

CREATE INDEX events_run ON events (n, seq) WHERE n IS NOT NULL;

-- SQLite's, as far as it is used: the number at a path of one key in a JSON object.
-- (Not by PostgreSQL's own JSON, which has no text with a NUL in it.)
CREATE FUNCTION json_extract(text TEXT, path TEXT) RETURNS DOUBLE PRECISION LANGUAGE sql IMMUTABLE AS $$
    SELECT substring(text FROM '"' || substr(path, 3) || '":\s*([-+0-9.eE]+)')::double precision
$$;

CREATE TABLE workers (
    id          TEXT   COLLATE "C" PRIMARY KEY,
    host        TEXT   COLLATE "C" NOT NULL,
    pid         BIGINT NOT NULL,
    version     TEXT   COLLATE "C" NOT NULL,
    file        TEXT   COLLATE "C" NOT NULL,
    concurrency BIGINT NOT NULL,
    jobs        TEXT   COLLATE "C" NOT NULL,
    queues      TEXT   COLLATE "C",
    lease_s     DOUBLE PRECISION NOT NULL,
    started_at  BIGINT NOT NULL,
    beat        BIGINT NOT NULL DEFAULT 0,
    beat_at     BIGINT NOT NULL,
    running     BIGINT NOT NULL DEFAULT 0,
    request     TEXT   COLLATE "C"
) WITH (fillfactor = 10);

CREATE TABLE pauses (
    kind TEXT   COLLATE "C" NOT NULL,
    name TEXT   COLLATE "C" NOT NULL,
    note TEXT   COLLATE "C",
    by   TEXT   COLLATE "C" NOT NULL,
    at   BIGINT NOT NULL,
    PRIMARY KEY (kind, name)
);

CREATE TABLE paused_times (
    schedule TEXT   COLLATE "C" NOT NULL,
    since    BIGINT NOT NULL,
    until    BIGINT NOT NULL,
    PRIMARY KEY (schedule, since)
);

CREATE TABLE gates (
    key   TEXT   COLLATE "C" PRIMARY KEY,
    n     BIGINT NOT NULL,
    since BIGINT NOT NULL
);

CREATE TABLE starts (
    job TEXT   COLLATE "C" NOT NULL,
    at  BIGINT NOT NULL,
    n   BIGINT NOT NULL,
    PRIMARY KEY (job, at, n)
);

CREATE TABLE schedules (
    name       TEXT   COLLATE "C" PRIMARY KEY,
    rule       TEXT   COLLATE "C" NOT NULL,
    definition TEXT   COLLATE "C" NOT NULL,
    file       TEXT   COLLATE "C" NOT NULL,
    last_slot  BIGINT NOT NULL,
    changed_at BIGINT NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE slots (
    schedule TEXT   COLLATE "C" NOT NULL,
    slot     BIGINT NOT NULL,
    outcome  TEXT   COLLATE "C" NOT NULL,
    run      TEXT   COLLATE "C",
    reason   TEXT   COLLATE "C",
    at       BIGINT NOT NULL,
    PRIMARY KEY (schedule, slot)
);

CREATE INDEX slots_at ON slots (at);

CREATE TABLE edges (
    child    BIGINT NOT NULL,
    parent   BIGINT NOT NULL,
    position BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (child, parent)
);

CREATE INDEX edges_parent ON edges (parent);
