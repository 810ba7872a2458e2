-- The ledger: one row an event. What the service's role may do here is INSERT and SELECT.

CREATE SEQUENCE scrip.ledger_positions AS bigint;

CREATE TABLE scrip.ledger_events (
    originator_id uuid NOT NULL,
    originator_version bigint NOT NULL CHECK (originator_version > 0),
    topic text NOT NULL,
    state bytea NOT NULL,
    notification_id bigint NOT NULL DEFAULT nextval('scrip.ledger_positions'),
    tenant text NOT NULL,
    account text,
    subject text,
    key text,
    content bytea CHECK (octet_length(content) = 32),
    recorded_at timestamptz NOT NULL,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (originator_id, originator_version),
    CHECK ((key IS NULL) = (content IS NULL))
);

CREATE UNIQUE INDEX ledger_events_position ON scrip.ledger_events (notification_id);
CREATE UNIQUE INDEX ledger_events_key ON scrip.ledger_events (originator_id, key) WHERE key IS NOT NULL;
CREATE INDEX ledger_events_subject ON scrip.ledger_events (originator_id, subject, originator_version)
    WHERE subject IS NOT NULL;

COMMENT ON TABLE scrip.ledger_events IS 'Append-only. state is JSON: convert_from(state, ''UTF8'')::jsonb';
COMMENT ON COLUMN scrip.ledger_events.account IS 'NULL: an event of the tenant''s catalog';
COMMENT ON COLUMN scrip.ledger_events.subject IS 'The reservation or direct deduction the event is about';
COMMENT ON COLUMN scrip.ledger_events.key IS 'The idempotency key of the command, on its own event';
COMMENT ON COLUMN scrip.ledger_events.hash IS 'SHA-256 of the stream''s previous hash and this row''s fields';

-- A cache: it changes what a command costs, never what it means.
CREATE TABLE scrip.snapshots (
    originator_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    format bytea NOT NULL,
    state bytea NOT NULL,
    position bigint NOT NULL,
    recorded_at timestamptz NOT NULL,
    hash bytea NOT NULL
);

CREATE TABLE scrip.tenants (
    tenant text PRIMARY KEY,
    mode text NOT NULL CHECK (mode IN ('live', 'test')),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE scrip.keys (
    id text PRIMARY KEY,
    tenant text NOT NULL REFERENCES scrip.tenants (tenant),
    role text NOT NULL CHECK (role IN ('service', 'admin', 'reader')),
    label text,
    secret_hash bytea NOT NULL UNIQUE CHECK (octet_length(secret_hash) = 32),
    hint text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz
);

-- Projections can be dropped and replayed at any time, so the service's role may do that.
CREATE SCHEMA projections;

GRANT USAGE ON SCHEMA scrip TO {app_role};
GRANT USAGE ON SEQUENCE scrip.ledger_positions TO {app_role};
GRANT SELECT, INSERT ON scrip.ledger_events TO {app_role};
GRANT SELECT, INSERT, UPDATE, DELETE ON scrip.snapshots TO {app_role};
GRANT SELECT, INSERT ON scrip.tenants TO {app_role};
GRANT SELECT, INSERT, UPDATE ON scrip.keys TO {app_role};
GRANT SELECT ON scrip.schema_versions TO {app_role};
GRANT USAGE, CREATE ON SCHEMA projections TO {app_role};
