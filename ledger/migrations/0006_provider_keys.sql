-- With which API key each tenant's payment provider is asked, encrypted before it comes here.

CREATE TABLE scrip.provider_keys (
    tenant text NOT NULL REFERENCES scrip.tenants (tenant),
    provider text NOT NULL CHECK (provider IN ('stripe', 'asaas')),
    key_id text NOT NULL,
    nonce bytea NOT NULL CHECK (octet_length(nonce) = 12),
    ciphertext bytea NOT NULL CHECK (octet_length(ciphertext) > 16),
    hint text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, provider),
    UNIQUE (key_id, nonce)
);

COMMENT ON COLUMN scrip.provider_keys.key_id IS 'Which key of SCRIP_SECRETS_KEYS it is encrypted with';
COMMENT ON COLUMN scrip.provider_keys.ciphertext IS 'AES-256-GCM, bound to its tenant, provider and key';

GRANT SELECT, INSERT, UPDATE, DELETE ON scrip.provider_keys TO {app_role};
