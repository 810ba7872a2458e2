-- What end users read their own account with, and what the list of alerts is found by.

CREATE TABLE scrip.account_keys (
    id text PRIMARY KEY,
    tenant text NOT NULL REFERENCES scrip.tenants (tenant),
    account text NOT NULL,
    label text,
    secret_hash bytea NOT NULL UNIQUE CHECK (octet_length(secret_hash) = 32),
    hint text NOT NULL,
    by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL CHECK (expires_at <= created_at + interval '30 days')
);

CREATE INDEX account_keys_account ON scrip.account_keys (tenant, account, expires_at);

COMMENT ON TABLE scrip.account_keys IS 'A key of one account. One that is revoked or has expired is deleted';

CREATE INDEX payment_alerts_list
    ON scrip.payment_alerts (tenant, raised_at DESC, code, subject, price);

GRANT SELECT, INSERT, DELETE ON scrip.account_keys TO {app_role};
