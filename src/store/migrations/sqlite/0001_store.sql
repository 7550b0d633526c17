CREATE TABLE head (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    store_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    chain TEXT NOT NULL,
    -- The oldest revision from which the changes are still known, and its chain.
    floor_revision INTEGER NOT NULL,
    floor_chain TEXT NOT NULL
);

CREATE TABLE policies (
    tenant_id TEXT NOT NULL,
    policy_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    etag TEXT NOT NULL,
    document BLOB NOT NULL,
    PRIMARY KEY (tenant_id, policy_id)
);

CREATE TABLE extensions (
    id TEXT NOT NULL PRIMARY KEY,
    revision INTEGER NOT NULL,
    etag TEXT NOT NULL,
    document BLOB NOT NULL
);

CREATE TABLE modules (
    sha256 TEXT NOT NULL PRIMARY KEY,
    bytes BLOB NOT NULL
);

CREATE TABLE changes (
    revision INTEGER PRIMARY KEY,
    op TEXT NOT NULL,
    kind TEXT NOT NULL,
    tenant_id TEXT,
    policy_id TEXT,
    id TEXT,
    etag TEXT,
    document BLOB,
    chain TEXT NOT NULL
);

CREATE TABLE idempotency (
    seq INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    request TEXT NOT NULL,
    status INTEGER NOT NULL,
    etag TEXT,
    revision INTEGER NOT NULL,
    created INTEGER NOT NULL
);

CREATE INDEX idempotency_created ON idempotency (created);
