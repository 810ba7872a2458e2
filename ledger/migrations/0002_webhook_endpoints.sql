-- Where providers tell of payments, and the secrets they sign with, encrypted before they come here.

CREATE TABLE scrip.webhook_endpoints (
    id text PRIMARY KEY,
    tenant text NOT NULL REFERENCES scrip.tenants (tenant),
    provider text NOT NULL CHECK (provider IN ('stripe', 'clerk', 'asaas', 'users')),
    label text,
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'disabled')),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX webhook_endpoints_tenant ON scrip.webhook_endpoints (tenant, created_at, id);

CREATE TABLE scrip.webhook_secrets (
    endpoint text NOT NULL REFERENCES scrip.webhook_endpoints (id) ON DELETE CASCADE,
    id text NOT NULL,
    key_id text NOT NULL,
    nonce bytea NOT NULL CHECK (octet_length(nonce) = 12),
    ciphertext bytea NOT NULL CHECK (octet_length(ciphertext) > 16),
    hint text NOT NULL,
    added_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    PRIMARY KEY (endpoint, id),
    UNIQUE (key_id, nonce)
);

COMMENT ON COLUMN scrip.webhook_secrets.key_id IS 'Which key of SCRIP_SECRETS_KEYS it is encrypted with';
COMMENT ON COLUMN scrip.webhook_secrets.ciphertext IS 'AES-256-GCM, bound to its tenant, provider, endpoint, id and key';

-- The receipts of changes that are no events: a row says what a key has done, and what was answered.
CREATE TABLE scrip.changes (
    tenant text NOT NULL REFERENCES scrip.tenants (tenant),
    key text NOT NULL,
    content bytea NOT NULL CHECK (octet_length(content) = 32),
    route text NOT NULL,
    by text NOT NULL,
    status smallint NOT NULL,
    location text,
    answer bytea NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, key)
);

COMMENT ON TABLE scrip.changes IS 'Append-only. answer is JSON, and holds no secret';

GRANT SELECT, INSERT, UPDATE, DELETE ON scrip.webhook_endpoints TO {app_role};
GRANT SELECT, INSERT, UPDATE, DELETE ON scrip.webhook_secrets TO {app_role};
GRANT SELECT, INSERT ON scrip.changes TO {app_role};
