-- Collation "C" compares ids by their bytes, which is the order that lists and snapshots promise.
CREATE TABLE head (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    store_id TEXT COLLATE "C" NOT NULL,
    revision BIGINT NOT NULL,
    chain TEXT COLLATE "C" NOT NULL,
    -- The oldest revision from which the changes are still known, and its chain.
    floor_revision BIGINT NOT NULL,
    floor_chain TEXT COLLATE "C" NOT NULL
);

CREATE TABLE policies (
    tenant_id TEXT COLLATE "C" NOT NULL,
    policy_id TEXT COLLATE "C" NOT NULL,
    revision BIGINT NOT NULL,
    etag TEXT COLLATE "C" NOT NULL,
    document BYTEA NOT NULL,
    PRIMARY KEY (tenant_id, policy_id)
);

CREATE TABLE extensions (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    revision BIGINT NOT NULL,
    etag TEXT COLLATE "C" NOT NULL,
    document BYTEA NOT NULL
);

CREATE TABLE modules (
    sha256 TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    bytes BYTEA NOT NULL
);

CREATE TABLE changes (
    revision BIGINT PRIMARY KEY,
    op TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    tenant_id TEXT COLLATE "C",
    policy_id TEXT COLLATE "C",
    id TEXT COLLATE "C",
    etag TEXT COLLATE "C",
    document BYTEA,
    chain TEXT COLLATE "C" NOT NULL
);

CREATE TABLE idempotency (
    seq BIGINT PRIMARY KEY,
    key TEXT COLLATE "C" NOT NULL UNIQUE,
    request TEXT COLLATE "C" NOT NULL,
    status BIGINT NOT NULL,
    etag TEXT COLLATE "C",
    revision BIGINT NOT NULL,
    created BIGINT NOT NULL
);

CREATE INDEX idempotency_created ON idempotency (created);
