-- What providers sent, without personal data, to look into for a time. Nothing is worked out from it.

CREATE TABLE scrip.webhook_deliveries (
    tenant text NOT NULL REFERENCES scrip.tenants (tenant),
    id text NOT NULL,
    -- No reference: an endpoint may be removed while what it has received is on its way.
    endpoint text NOT NULL,
    provider text NOT NULL CHECK (provider IN ('stripe', 'clerk', 'asaas', 'users')),
    delivery text NOT NULL,
    type text NOT NULL,
    occurred_at timestamptz,
    received_at timestamptz NOT NULL,
    payload bytea NOT NULL,
    facts integer NOT NULL CHECK (facts >= 0),
    to_fetch text,
    unreadable text,
    PRIMARY KEY (tenant, id)
);

CREATE INDEX webhook_deliveries_endpoint
    ON scrip.webhook_deliveries (tenant, endpoint, received_at DESC, id DESC);
CREATE INDEX webhook_deliveries_age ON scrip.webhook_deliveries (received_at);

COMMENT ON COLUMN scrip.webhook_deliveries.id IS 'Made of endpoint, delivery and body';
COMMENT ON COLUMN scrip.webhook_deliveries.payload IS 'JSON: convert_from(payload, ''UTF8'')::jsonb';
COMMENT ON COLUMN scrip.webhook_deliveries.facts IS 'How many facts it told by itself';
COMMENT ON COLUMN scrip.webhook_deliveries.to_fetch IS 'The payment that had to be fetched from its provider';

GRANT SELECT, INSERT, DELETE ON scrip.webhook_deliveries TO {app_role};
