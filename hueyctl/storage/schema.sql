-- The store, version 1. Times are microseconds since the epoch, UTC. What locks, limits, schedules and pipelines need
-- is here from the start: adding it to a store with a million runs would be a migration.

-- Facts about the store itself: the boot that it was last used in, until when claims are synced.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;

-- A run: one enqueued instance of a job. `n` is the order of acceptance; no other run gets it while an event has it.
-- What is long comes last, so that reading the rest of a row never follows it.
CREATE TABLE runs (
    n              INTEGER PRIMARY KEY,
    id             TEXT    NOT NULL UNIQUE,
    state          TEXT    NOT NULL,
    job            TEXT    NOT NULL,
    queue          TEXT    NOT NULL,
    priority       INTEGER NOT NULL,
    -- What a queued run waits for: 'schedule:NAME' (others of its schedule) or 'lock:KEY' (the one that holds its lock).
    -- Set when it is found to have to wait, cleared for the next in line by the end of what it waits for. A claim sees
    -- only what has none.
    gate           TEXT,
    -- Why a run is held: 'undefined' (no live worker defines its job) or 'misfit' (its message doesn't fit).
    hold           TEXT,
    attempt        INTEGER NOT NULL DEFAULT 0,
    -- The fence: only who knows it can settle the attempt. NULL unless running.
    token          TEXT,
    worker         TEXT,
    retries_left   INTEGER,
    losses         INTEGER NOT NULL DEFAULT 0,
    crash_limit    INTEGER NOT NULL DEFAULT 3,
    on_worker_lost TEXT    NOT NULL DEFAULT 'retry',
    -- A revoke was asked of a running run; its attempt is to be stopped.
    revoking       INTEGER NOT NULL DEFAULT 0,
    killing        INTEGER NOT NULL DEFAULT 0,
    enqueued_at    INTEGER NOT NULL,
    due_at         INTEGER NOT NULL,
    -- How long after it is due it may still start for the first time, and until when that is; gone once it started.
    expires_us     INTEGER,
    expires_at     INTEGER,
    started_at     INTEGER,
    finished_at    INTEGER,
    trigger        TEXT    NOT NULL DEFAULT 'manual',
    schedule       TEXT,
    slot           INTEGER,
    -- The id of the pipeline's run that it is a step of, and which of its steps; of the pipeline's run its own id, and
    -- no position.
    pipeline       TEXT,
    position       INTEGER,
    lock_key       TEXT,
    unique_key     BLOB,
    exit_code      INTEGER,
    error          TEXT,
    reason         TEXT,
    result_error   TEXT,
    message        TEXT    NOT NULL,
    result         BLOB
) STRICT;

-- Each claim and each settlement asks every index that names `state` whether it has the row: `state IN (…)` there costs
-- more than all the rest of it (SQLite builds the list as a table each time). finished_at is NULL as long as a run lives.

-- Claiming: the head of each line (queue, job) is one seek away, however many runs stand in it.
CREATE INDEX runs_queued ON runs (queue, job, priority DESC, n) WHERE state = 'queued' AND gate IS NULL;
-- The next in line behind a gate: queued, or a pipeline's run.
CREATE INDEX runs_gated ON runs (gate, priority DESC, n) WHERE gate IS NOT NULL AND finished_at IS NULL;
-- The next in each line behind a lock.
CREATE INDEX runs_locked ON runs (gate, queue, job, priority DESC, n)
    WHERE lock_key IS NOT NULL AND gate IS NOT NULL AND state = 'queued';
-- What becomes due next.
CREATE INDEX runs_due ON runs (due_at) WHERE state = 'scheduled';
-- What expires next.
CREATE INDEX runs_expiring ON runs (expires_at)
    WHERE expires_at IS NOT NULL AND finished_at IS NULL AND state <> 'running';
-- What a worker has: for its requests, and for its rescue. Nobody has a pipeline's run, which may be running too.
CREATE INDEX runs_running ON runs (worker) WHERE state = 'running';
CREATE INDEX runs_held ON runs (queue, job) WHERE state = 'held';
-- Ended runs, by their end: for pruning. Steps go with their pipeline.
CREATE INDEX runs_ended ON runs (state, finished_at) WHERE finished_at IS NOT NULL AND position IS NULL;
-- Those that ended badly, by their number (the rowid is every index's last column): few among many, and looked for.
CREATE INDEX runs_bad ON runs (state) WHERE finished_at IS NOT NULL AND state <> 'succeeded';
-- The newest of a job, and of a schedule.
CREATE INDEX runs_job ON runs (job);
CREATE INDEX runs_schedule ON runs (schedule) WHERE schedule IS NOT NULL AND position IS NULL;
-- The live ones of a schedule: whether its runs overlap, however long its history is, and however many wait in line.
CREATE INDEX runs_of_schedule ON runs (schedule, gate) WHERE schedule IS NOT NULL AND finished_at IS NULL;
-- The steps of a pipeline, and what of it has not ended.
CREATE INDEX runs_pipeline ON runs (pipeline, position) WHERE pipeline IS NOT NULL;
CREATE INDEX runs_going_on ON runs (pipeline, position) WHERE pipeline IS NOT NULL AND finished_at IS NULL;
-- One live run per unique key, whoever races.
CREATE UNIQUE INDEX runs_unique ON runs (unique_key) WHERE unique_key IS NOT NULL AND finished_at IS NULL;

-- How many runs stand in a line and don't run: kept as they come and go, for a million can't be counted at a glance.
-- By the statements that move runs, not by triggers: those cost each claim and each settlement a third of its time.
CREATE TABLE lines (
    queue TEXT    NOT NULL,
    job   TEXT    NOT NULL,
    state TEXT    NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (queue, job, state)
) STRICT, WITHOUT ROWID;

-- The event log. `seq` only grows: the newest event is never pruned. (AUTOINCREMENT would say the same, with a table of
-- its own that every inserted row looks up and writes: a tenth of each claim and settlement.)
-- An event outlives its run: it keeps the run's id, and `n` is for finding it.
CREATE TABLE events (
    seq      INTEGER PRIMARY KEY,
    time     INTEGER NOT NULL,
    type     TEXT    NOT NULL,
    state    TEXT,
    n        INTEGER,
    run      TEXT,
    job      TEXT,
    attempt  INTEGER,
    worker   TEXT,
    schedule TEXT,
    slot     INTEGER,
    pipeline TEXT,
    by       TEXT,
    data     TEXT
) STRICT;

-- By number and not by id: numbers grow with time, so that writing stays at the end of the index.
CREATE INDEX events_run ON events (n) WHERE n IS NOT NULL;

-- The workers that live, or have died and not been rescued yet. A beat is counted, not timed: clocks jump.
CREATE TABLE workers (
    id          TEXT    PRIMARY KEY,
    host        TEXT    NOT NULL,
    pid         INTEGER NOT NULL,
    version     TEXT    NOT NULL,
    file        TEXT    NOT NULL,
    concurrency INTEGER NOT NULL,
    jobs        TEXT    NOT NULL,
    queues      TEXT,
    lease_s     REAL    NOT NULL,
    started_at  INTEGER NOT NULL,
    beat        INTEGER NOT NULL DEFAULT 0,
    beat_at     INTEGER NOT NULL,
    running     INTEGER NOT NULL DEFAULT 0,
    request     TEXT
) STRICT, WITHOUT ROWID;

-- Switches that stand until they are unset; independent of each other. The name of 'all' is empty.
CREATE TABLE pauses (
    kind TEXT    NOT NULL,
    name TEXT    NOT NULL,
    note TEXT,
    by   TEXT    NOT NULL,
    at   INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

-- When schedules were paused (an empty name is all of them), up to before `until`: a slot of that time is not missed,
-- whenever a worker comes to it. Kept as long as events are.
CREATE TABLE paused_times (
    schedule TEXT    NOT NULL,
    since    INTEGER NOT NULL,
    until    INTEGER NOT NULL,
    PRIMARY KEY (schedule, since)
) STRICT, WITHOUT ROWID;

-- Who holds a lock key. A row lives as long as the attempt that holds it.
CREATE TABLE gates (
    key   TEXT    PRIMARY KEY,
    n     INTEGER NOT NULL REFERENCES runs (n),
    since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- When runs of rate-limited jobs were claimed, as far back as their windows reach.
CREATE TABLE starts (
    job TEXT    NOT NULL,
    at  INTEGER NOT NULL,
    n   INTEGER NOT NULL,
    PRIMARY KEY (job, at, n)
) STRICT, WITHOUT ROWID;

-- What a schedule was when it last fired: a worker that has another definition doesn't fire it, and nothing but a
-- backfill fires below `last_slot`.
CREATE TABLE schedules (
    name       TEXT    PRIMARY KEY,
    -- Hashes: of the rule that makes its slots, and of all of it.
    rule       TEXT    NOT NULL,
    definition TEXT    NOT NULL,
    -- The jobs.toml that it was read from.
    file       TEXT    NOT NULL,
    last_slot  INTEGER NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Each slot that was decided, once: the primary key is what makes two workers fire it once.
CREATE TABLE slots (
    schedule TEXT    NOT NULL,
    slot     INTEGER NOT NULL,
    outcome  TEXT    NOT NULL,
    run      TEXT,
    reason   TEXT,
    at       INTEGER NOT NULL,
    PRIMARY KEY (schedule, slot)
) STRICT, WITHOUT ROWID;

CREATE INDEX slots_at ON slots (at);

-- Which step waits for which, both by number, and in which order it is handed their results. The child of a pipeline's
-- last steps is its own run.
CREATE TABLE edges (
    child    INTEGER NOT NULL REFERENCES runs (n),
    parent   INTEGER NOT NULL REFERENCES runs (n),
    position INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (child, parent)
) STRICT, WITHOUT ROWID;

CREATE INDEX edges_parent ON edges (parent);
